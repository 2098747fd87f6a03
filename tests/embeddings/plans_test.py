"""Features and plans."""

from __future__ import annotations

from absl.testing import absltest
from absl.testing import parameterized

from dare_jax import embeddings


class FeatureTest(parameterized.TestCase):
  @parameterized.parameters('vocab_size', 'attention_dim', 'representation_dim')
  def test_sizes_below_one_are_refused(self, field):
    sizes = {'vocab_size': 3, 'attention_dim': 2, 'representation_dim': 2}
    with self.assertRaisesRegex(ValueError, f'item: {field}=0'):
      embeddings.Feature('item', **(sizes | {field: 0}))

  def test_width_of_a_role(self):
    feature = embeddings.Feature('item', 3, 2, 5)
    assert feature.dim('attention') == 2
    assert feature.dim('representation') == 5


class PlanTest(parameterized.TestCase):
  # The number of tables of each model, arXiv 2410.02604, section 4.
  @parameterized.parameters(
    ('shared', 1),
    ('decoupled', 2),
    ('three', 3),
    ('four', 4),
    ('projected', 1),
  )
  def test_number_of_tables(self, name, expected):
    assert len(embeddings.PLANS[name].suffixes) == expected

  @parameterized.named_parameters(*((name, name) for name in embeddings.PLANS))
  def test_a_plan_covers_the_four_uses(self, name):
    plan = embeddings.PLANS[name]
    assert plan.name == name
    assert set(plan.table_of) == {
      (role, side)
      for role in ('attention', 'representation')
      for side in ('target', 'behavior')
    }
    for suffix in plan.suffixes:
      serves = {r for (r, _), table in plan.table_of.items() if table == suffix}
      if len(serves) == 1:
        assert {plan.role_of(suffix)} == serves
      else:
        assert plan.role_of(suffix) == 'representation'

  @parameterized.named_parameters(*((name, name) for name in embeddings.PLANS))
  def test_a_table_of_both_roles_has_one_width(self, name):
    plan = embeddings.PLANS[name]
    plan.check(embeddings.Feature('item', 3, 4, 4))
    unequal = embeddings.Feature('item', 3, 4, 5)
    if len(plan.suffixes) > 1:
      plan.check(unequal)
    else:
      with self.assertRaisesRegex(ValueError, f'{name!r}.*item.*decoupled'):
        plan.check(unequal)


if __name__ == '__main__':
  absltest.main()
