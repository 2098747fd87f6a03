"""Exact top-k against sorting, with ties, masks and NaN."""

from __future__ import annotations

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np

from dare_jax import search
from tests.models import reference

_LENGTH = 7


def _rows(elements: st.SearchStrategy) -> st.SearchStrategy:
  return st.lists(elements, min_size=_LENGTH, max_size=_LENGTH)


class TopKTest(parameterized.TestCase):
  @hypothesis.given(
    # Few values, so that most rows have ties.
    scores=_rows(st.sampled_from([-2.0, -0.0, 0.0, 1.5, 3e38, -3e38])),
    visible=_rows(st.booleans()),
    k=st.sampled_from([1, 3, _LENGTH]),
  )
  def test_equals_sorting_and_ties_go_to_the_most_recent(
    self, scores, visible, k
  ):
    index, mask = search.top_k(jnp.array(scores), jnp.array(visible), k)
    assert index.dtype == jnp.int32 and mask.dtype == bool
    candidates = {i: scores[i] for i in range(_LENGTH) if visible[i]}
    expected = reference.top_k(candidates, k)
    assert np.asarray(index)[np.asarray(mask)].tolist() == expected
    # The kept come first; the rest of the indices still point into the row.
    assert mask.tolist() == [i < len(expected) for i in range(k)]
    assert ((index >= 0) & (index < _LENGTH)).all()

  @parameterized.parameters((1, 1), (2, 1), (2, 3), (5, 2))
  def test_leading_axes_and_a_mask_that_broadcasts(self, windows, moments):
    rng = np.random.default_rng(windows)
    scores = rng.normal(size=(windows, moments, 3, 9)).astype(np.float32)
    visible = rng.random((windows, moments, 1, 9)) < 0.5
    index, mask = search.top_k(jnp.array(scores), jnp.array(visible), 4)
    assert index.shape == mask.shape == (windows, moments, 3, 4)
    for where in np.ndindex(windows, moments, 3):
      row = visible[where[0], where[1], 0]
      candidates = {i: scores[where][i] for i in np.flatnonzero(row)}
      kept = np.asarray(index[where])[np.asarray(mask[where])]
      assert kept.tolist() == reference.top_k(candidates, 4)

  @parameterized.parameters(0, -1, _LENGTH + 1)
  def test_k_out_of_bounds_is_refused(self, k):
    with self.assertRaisesRegex(ValueError, f'top_k={k}.*length, {_LENGTH}'):
      search.top_k(jnp.zeros(_LENGTH), jnp.ones(_LENGTH, bool), k)

  def test_shapes_that_contradict_are_refused(self):
    # By the hook in tests/conftest.py: this fails if it came too late.
    with self.assertRaises(jaxtyping.TypeCheckError):
      search.top_k(jnp.zeros(3), jnp.ones(4, bool), 1)

  def test_nan_ranks_first_and_only_if_visible(self):
    scores = jnp.array([1.0, jnp.nan, 2.0, jnp.nan])
    index, mask = search.top_k(scores, jnp.array([1, 1, 1, 0], bool), 2)
    # A diverged model shows in its output instead of hiding behind padding.
    assert index[0] == 1

  def test_minus_infinity_counts_as_invisible(self):
    scores = jnp.array([-jnp.inf, 1.0])
    _, mask = search.top_k(scores, jnp.ones(2, bool), 2)
    assert mask.tolist() == [True, False]

  def test_half_precision_scores_rank_the_same(self):
    scores = jnp.array([0.5, 2.0, -1.0, 2.0], jnp.bfloat16)
    index, _ = search.top_k(scores, jnp.ones(4, bool), 3)
    assert index.tolist() == [3, 1, 0]

  def test_the_choice_carries_no_gradient(self):
    def total(scores: jax.Array) -> jax.Array:
      index, mask = search.top_k(scores, jnp.ones(4, bool), 2)
      return jnp.sum(index * mask).astype(jnp.float32) + 0.0 * scores[0]

    assert not jax.grad(total)(jnp.arange(4.0)).any()


if __name__ == '__main__':
  absltest.main()
