"""Scores, one behavior at a time."""

from __future__ import annotations

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import search
from dare_jax import types


def _inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  rng = np.random.default_rng(0)
  query = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
  keys = rng.normal(size=(2, 6, 5)).astype(np.float32)
  return query, keys, rng.normal(size=(2, 3, 1, 6)).astype(np.float32)


class InnerProductTest(absltest.TestCase):
  def test_equals_the_equation(self):
    query, keys, bias = _inputs()
    scores = np.asarray(
      search.inner_product_scores(*map(jnp.array, (query, keys, bias)))
    )
    assert scores.shape == (2, 3, 4, 6)
    for b, m, c, i in np.ndindex(*scores.shape):
      expected = query[b, m, c] @ keys[b, i] / np.sqrt(5) + bias[b, m, 0, i]
      # Five products of values near 1.
      np.testing.assert_allclose(
        scores[b, m, c, i], expected, rtol=1e-5, atol=1e-6
      )

  def test_scorer_is_the_function(self):
    query, keys, bias = map(jnp.array, _inputs())
    # Position 5 - i of behavior i: a bias by distance, the same for all.
    distance = jnp.broadcast_to(jnp.arange(6)[::-1], (2, 3, 6))
    view = search.SearchView(
      query=query,
      keys=keys,
      bias_by_distance=bias[0, 0, 0, ::-1],
      distance=distance,
      visible=jnp.ones((2, 3, 6), bool),
      target_ids={},
      history=types.History(ids={}, mask=jnp.ones((2, 6), bool)),
    )
    bias = jnp.broadcast_to(bias[:1, :1], bias.shape)
    scores, variables = search.DotScorer().init_with_output(
      jax.random.key(0), view
    )
    assert not variables
    np.testing.assert_array_equal(
      scores, search.inner_product_scores(query, keys, bias)
    )

  def test_a_constant_on_the_time_term_changes_no_choice(self):
    query, keys, bias = map(jnp.array, _inputs())
    visible = jnp.ones(6, bool)
    before = search.inner_product_scores(query, keys, bias)
    after = search.inner_product_scores(query, keys, bias + 2.0)
    np.testing.assert_array_equal(
      search.top_k(before, visible, 3)[0], search.top_k(after, visible, 3)[0]
    )


if __name__ == '__main__':
  absltest.main()
