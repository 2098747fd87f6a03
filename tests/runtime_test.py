"""The allocator, in processes of their own: what it is told holds for good."""

import resource

import ml_collections
import pytest

from dare_jax import runtime
from dare_jax.bench import process

_SIZE = 6_000  # 144 MB: more than a thread's arena holds.


def _faults_a_call(tune_malloc: bool) -> float:
  """Page faults of a jitted call that needs `_SIZE`^2 floats for a while."""
  runtime.configure(
    ml_collections.ConfigDict(
      {'tune_malloc': tune_malloc, 'compilation_cache': ''}
    )
  )
  import jax
  import jax.numpy as jnp

  @jax.jit
  def call(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(x @ x.T))

  x = jnp.ones((_SIZE, 8))
  for _ in range(3):  # Until the heap has room for it.
    call(x).block_until_ready()
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  for _ in range(3):
    call(x).block_until_ready()
  return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 3


@pytest.mark.slow
def test_buffers_stay_mapped_between_calls():
  pages = _SIZE**2 * 4 / 4096
  assert process.run_fresh(_faults_a_call, False) > 0.9 * pages
  assert process.run_fresh(_faults_a_call, True) < 0.01 * pages
