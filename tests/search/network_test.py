"""DIN's network, split by parts, against one layer on the concatenation."""

from __future__ import annotations

import functools

from absl.testing import absltest
from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import search
from tests.search import views


def _variables(view: search.SearchView, seed: int):
  shapes = jax.eval_shape(
    search.NetworkScorer(hidden=6).init, jax.random.key(0), view
  )
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jax.device_put(rng.normal(size=x.shape)), shapes
  )


def _concatenated(variables, view: search.SearchView):
  """s = MLP([q, k, q - k, q * k]) / d + time."""
  params = variables['params']
  query, keys = view.query[:, :, :, None, :], view.keys[:, None, None]
  shape = (*view.query.shape[:3], *view.keys.shape[1:])
  query, keys = jnp.broadcast_to(query, shape), jnp.broadcast_to(keys, shape)
  pairs = jnp.concatenate([query, keys, query - keys, query * keys], axis=-1)
  rows = pairs.reshape(-1, pairs.shape[-1])
  x = rows @ params['hidden']['kernel'] + params['hidden']['bias'][None]
  x = jnp.where(x >= 0, x, params['slope']['negative_slope'] * x)
  x = x @ params['score']['kernel'] + params['score']['bias'][None]
  return x.reshape(shape[:-1]) / shape[-1] + view.time_bias()


class NetworkScorerTest(parameterized.TestCase):
  @parameterized.parameters(*views.SHAPES)
  def test_equals_the_network_on_the_concatenation(self, *shape):
    view = views.make_view(0, *shape)
    variables = _variables(view, 1)
    weight = jax.device_put(
      np.random.default_rng(2).normal(
        size=(*view.query.shape[:3], view.keys.shape[1])
      )
    )

    def split(variables, query, keys):
      changed = view.replace(query=query, keys=keys)
      return search.NetworkScorer(hidden=6).apply(variables, changed)

    def whole(variables, query, keys):
      return _concatenated(variables, view.replace(query=query, keys=keys))

    @functools.partial(jax.jit, static_argnums=0)
    def scores_and_gradients(scorer, *inputs):
      def weighed(*inputs):
        scores = scorer(*inputs)
        return jnp.sum(weight * scores), scores

      grads, scores = jax.grad(weighed, argnums=(0, 1, 2), has_aux=True)(
        *inputs
      )
      return scores, grads

    inputs = (variables, view.query, view.keys)
    scores, grads = zip(
      *(scores_and_gradients(f, *inputs) for f in (split, whole)), strict=True
    )
    chex.assert_trees_all_close(*scores, rtol=1e-5, atol=1e-5)
    # Sums of up to 2 * 3 * 4 * 12 terms near 1.
    chex.assert_trees_all_close(*grads, rtol=1e-4, atol=1e-4)

  def test_sizes_as_published(self):
    view = views.make_view(0)
    params = jax.eval_shape(
      search.NetworkScorer().init, jax.random.key(0), view
    )['params']
    shapes = jax.tree.map(lambda x: x.shape, params)
    assert shapes == {
      'hidden': {'kernel': (16, 36), 'bias': (36,)},
      'slope': {'negative_slope': ()},
      'score': {'kernel': (36, 1), 'bias': (1,)},
    }

  def test_targets_and_behaviors_are_scored_apart(self):
    view = views.make_view(3)
    variables = _variables(view, 4)
    apply = jax.jit(search.NetworkScorer(hidden=6).apply)
    scores = apply(variables, view)
    part = view.replace(
      query=view.query[:, :, 1:],
      target_ids=jax.tree.map(lambda x: x[:, :, 1:], view.target_ids),
    )
    alone = apply(variables, part)
    np.testing.assert_allclose(alone, scores[:, :, 1:], rtol=1e-5, atol=1e-5)
    keys = view.keys.at[:, 2].set(9.0)
    changed = np.array(apply(variables, view.replace(keys=keys)))
    changed[..., 2] = scores[..., 2]
    np.testing.assert_allclose(changed, scores, rtol=1e-5, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
