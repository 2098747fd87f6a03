"""Vectors of sets beside the mean of their members in NumPy, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.embeddings import sets

# Of padding, the unknown one, and five more; the members of each.
_MEMBERS = [[0], [1], [2], [3, 5, 4], [5, 2], [6, 7, 2, 3, 4], [1]]
_FIRST = np.cumsum([0, *map(len, _MEMBERS)]).astype(np.int32)
_MEMBER = np.concatenate(_MEMBERS).astype(np.int32)
_TABLE = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def _pooled(table: jax.Array, ids: jax.Array, widest: int) -> jax.Array:
  parts = jnp.asarray(_FIRST), jnp.asarray(_MEMBER)
  return sets.pooled(table, *parts, ids, widest)


def _means(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
  rows = [
    np.mean([table[member] for member in _MEMBERS[i]], axis=0) for i in ids
  ]
  return np.stack(rows)


def _gradient(weight: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """Of sum(weight * means) by the table."""
  found = np.zeros_like(_TABLE)
  for own, i in zip(weight, ids, strict=True):
    for member in _MEMBERS[i]:
      found[member] += own / len(_MEMBERS[i])
  return found


@pytest.mark.parametrize('ids', [np.arange(7), np.array([5, 0, 3, 3])])
def test_a_set_is_the_mean_of_its_members(ids):
  weight = np.random.default_rng(1).normal(size=(len(ids), 3))

  def total(table):
    found = _pooled(table, jnp.asarray(ids), widest=5)
    return jnp.sum(weight * found), found

  grad = jax.jit(jax.grad(total, has_aux=True))
  gradient, found = grad(jnp.asarray(_TABLE))
  np.testing.assert_allclose(found, _means(_TABLE, ids), atol=1e-6)
  np.testing.assert_allclose(gradient, _gradient(weight, ids), atol=1e-6)


def test_sets_of_one_are_their_member():
  ids = jnp.array([2, 2, 0, 1])
  found = _pooled(jnp.asarray(_TABLE), ids, widest=1)
  np.testing.assert_array_equal(found, _TABLE[[2, 2, 0, 1]])
