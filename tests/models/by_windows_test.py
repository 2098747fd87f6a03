"""Some windows at a time give what all at once give, in value and gradient."""

from __future__ import annotations

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from dare_jax import models
from tests.models import examples


class ByWindowsTest(parameterized.TestCase):
  # Of seven windows: one at a time, or three and three and one. Parameters in
  # the scorer, in the search, neither; a bias of positions for each target.
  @parameterized.parameters(('din', None, 1), ('twin_v2', None, 3))
  @pytest.mark.quick_cases('0')
  def test_equals_all_at_once(self, name, plan, size):
    self._check(name, plan, size)

  @parameterized.parameters(
    ('sim_soft', None, 3), ('twin', 'projected_concat', 3)
  )
  @pytest.mark.slow
  def test_further_models_equal_all_at_once(self, name, plan, size):
    self._check(name, plan, size)

  def _check(self, name, plan, size):
    batch = examples.make_batch(windows=7)
    if name == 'twin_v2':
      batch = examples.with_clusters(batch, 3)
    whole = examples.build(name, plan=plan)
    variables = examples.make_variables(whole, batch)
    scores = batch.targets.label[0].size * examples.LENGTH
    config = dataclasses.replace(whole.config, scores_at_once=size * scores)
    measure = jax.jit(
      lambda model, *inputs: vars(examples.measure(model, *inputs)),
      static_argnums=0,
    )
    found = [
      measure(model, variables, batch)
      for model in (whole, models.Ranker(config))
    ]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
      one, other = np.asarray(one), np.asarray(other)
      if one.dtype.kind == 'f':
        # The same sums in another order, in float32.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
      else:
        np.testing.assert_array_equal(one, other)


if __name__ == '__main__':
  absltest.main()
