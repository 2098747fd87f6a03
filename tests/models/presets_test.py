"""Presets: names, sizes, and what a wrong one says."""

from __future__ import annotations

from absl.testing import absltest
from absl.testing import parameterized

from dare_jax import models
from tests.models import examples


class PresetsTest(parameterized.TestCase):
  def test_plans_of_the_paper(self):
    assert examples.build('dare').config.plan == 'decoupled'
    assert examples.build('twin').config.plan == 'shared'

  def test_none_keeps_the_preset_s_value(self):
    model = models.build(
      'sdim', vocab_sizes=examples.VOCAB, plan=None, top_k=None, aux_head=None
    )
    assert model.config.plan == 'shared'
    assert model.config.top_k == 20
    assert model.config.aux_head is False

  def test_widths_by_field_and_role(self):
    model = examples.build(
      'dare',
      attention_dim=2,
      attention_dims={'time': 5, 'item': None},
      representation_dims={'category': 7},
    )
    widths = {
      feature.name: (feature.attention_dim, feature.representation_dim)
      for feature in (*model.config.content, model.config.time)
    }
    assert widths == {'item': (2, 3), 'category': (2, 7), 'time': (5, 3)}

  @parameterized.named_parameters(
    ('preset', {'name': 'dari'}, "model.name 'dari'.*did you mean 'dare'"),
    ('plan', {'plan': 'share'}, "model.plan 'share'.*did you mean 'shared'"),
    ('option', {'topk': 3}, "option 'topk'.*did you mean 'top_k'"),
    ('top_k', {'top_k': 0}, 'top_k=0: expected 1 or more'),
    ('exact', {'exact_positions': 0}, 'exact_positions=0'),
    ('dim', {'attention_dim': 0}, 'attention_dim=0'),
    ('field', {'vocab_sizes': {'item': 3}}, "lacks 'category'"),
    ('dims', {'attention_dims': {'itm': 3}}, "'itm'.*did you mean 'item'"),
    ('init', {'projection_init': 'lecum'}, "did you mean 'lecun'"),
    (
      'blind_attention',
      {'aggregation': 'buckets', 'aux_head': False, 'hash_bits': 6},
      "no gradient would reach the attention tables of plan 'decoupled'",
    ),
    (
      'blind_search',
      {'search': 'projected', 'aux_head': False},
      "search='projected' learns from the auxiliary loss alone",
    ),
    (
      'signatures',
      {'aggregation': 'buckets', 'hash_bits': 8},
      'hash_width=3 must divide model.hash_bits=8',
    ),
    (
      'widths',
      {'plan': 'shared', 'attention_dim': 2},
      'attention_dim=2 and representation_dim=3',
    ),
  )
  def test_refused(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      examples.build(**options)


if __name__ == '__main__':
  absltest.main()
