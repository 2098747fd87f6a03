"""Scores, one behavior at a time."""

from __future__ import annotations

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import search


def _inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  rng = np.random.default_rng(0)
  query = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
  keys = rng.normal(size=(2, 6, 5)).astype(np.float32)
  return query, keys, rng.normal(size=(2, 3, 6)).astype(np.float32)


class InnerProductTest(absltest.TestCase):
  def test_equals_the_equation(self):
    query, keys, bias = _inputs()
    scores = search.inner_product_scores(*map(jnp.array, (query, keys, bias)))
    assert scores.shape == (2, 3, 4, 6)
    for b, m, c, i in np.ndindex(*scores.shape):
      expected = query[b, m, c] @ keys[b, i] / np.sqrt(5) + bias[b, m, i]
      # Five products of values near 1.
      np.testing.assert_allclose(
        scores[b, m, c, i], expected, rtol=1e-5, atol=1e-6
      )

  def test_scorer_is_the_function(self):
    query, keys, bias = map(jnp.array, _inputs())
    view = search.SearchView(
      query=query,
      keys=keys,
      time_bias=bias,
      visible=jnp.ones(bias.shape, bool),
      target_ids={},
      history_ids={},
    )
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
