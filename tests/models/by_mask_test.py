"""A mask over the window gives the logits that a list of what is kept gives."""

from __future__ import annotations

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from dare_jax.aggregate import by_mask
from tests.models import conformance
from tests.models import examples
from tests.models import real_time_test

_FIELDS = ('item', 'category')


class ByMaskTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('dare', 'dare', {}),
    ('time_in_the_map', 'twin', {'plan': 'projected_concat'}),
    ('no_time', 'dare', {'use_time': False}),
    ('hashes', 'eta', {}),
    ('category', 'dare', {'search': 'category', 'aux_head': False}),
    ('network', 'din', {}),
    ('matches', 'dare', {'match_fields': _FIELDS}),
    ('mean', 'dare_match_mean', {}),
    ('real_time', 'dare', {'real_time': ('gap', 'hour')}),
  )
  @pytest.mark.quick_cases('dare', 'category', 'real_time')
  def test_equals_a_call(self, name, options):
    batch = examples.make_batch(windows=7, num_padding=(5, 0, 2))
    if 'real_time' in options:
      batch = real_time_test.with_times(batch)
    self._check(examples.build(name, **options), batch, windows=3)

  def test_equals_a_call_where_the_choice_is_counted(self):
    batch = examples.make_batch(
      windows=5, moments=20, candidates=12, length=64, num_padding=(62, 30)
    )
    self._check(examples.build('dare', top_k=5), batch, windows=5)

  def _check(self, model, batch, windows):
    assert by_mask.pays(model.config, batch)
    variables = examples.make_variables(model, batch)
    expected = jax.jit(model.apply)(variables, batch).logits
    scores = batch.targets.label[0].size * batch.history.mask.shape[1]
    with mock.patch.object(by_mask, '_SCORES_AT_ONCE', windows * scores):
      found = jax.jit(lambda *x: model.apply(*x, method='logits'))(
        variables, batch
      )
    np.testing.assert_allclose(found, expected, **conformance.CLOSE)

  @parameterized.named_parameters(
    ('many', {}, 8, 8, 200, True),
    ('one', {}, 1, 1, 200, False),
    ('long', {}, 8, 8, 1000, False),
    ('few_kept', {'top_k': 2}, 8, 8, 200, False),
    ('all_kept', {'search': 'all'}, 8, 8, 20, False),
    ('heads', {'interest_heads': 2}, 8, 8, 20, False),
    ('clusters', {'search': 'clusters'}, 8, 8, 20, False),
  )
  def test_where_it_pays(self, options, moments, candidates, length, expected):
    batch = examples.make_batch(
      windows=1, moments=moments, candidates=candidates, length=length
    )
    config = examples.build(**({'top_k': 20} | options)).config
    assert by_mask.pays(config, batch) == expected
    with mock.patch.object(jax, 'default_backend', lambda: 'gpu'):
      assert not by_mask.pays(config, batch)

  def test_where_it_does_not_pay_it_is_a_call(self):
    model = examples.build(search='all')
    batch = examples.make_batch()
    variables = examples.make_variables(model, batch)
    found = jax.jit(lambda *x: model.apply(*x, method='logits'))(
      variables, batch
    )
    expected = jax.jit(model.apply)(variables, batch).logits
    np.testing.assert_array_equal(found, expected)


if __name__ == '__main__':
  absltest.main()
