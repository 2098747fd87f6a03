"""The allocator, in processes of their own: what it is told holds for good."""

import resource

import jax
import jax.numpy as jnp
import pytest

from dare_jax.bench import process
from dare_jax.process import runtime

_SIZE = 6_000  # 144 MB: more than a thread's arena holds.


def _faults_a_call() -> float:
  """Page faults of a jitted call that returns `_SIZE`^2 floats."""

  @jax.jit
  def call(x: jax.Array) -> jax.Array:
    return jnp.sin(x @ x.T)

  def faults(calls: int) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
      call(x).block_until_ready()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return (after - before) / calls

  x = jnp.ones((_SIZE, 8))
  faults(10)  # Small buffers settle, too, and the heap grows with them.
  # On a busy machine a buffer is given back late, and the heap grows by another
  # one, once: the least of a few rounds has none of that.
  return min(faults(5) for _ in range(4))


@pytest.mark.slow
def test_buffers_stay_mapped_between_calls():
  pages = _SIZE**2 * 4 / 4096
  for tune, low, high in ((False, 0.9, 1.1), (True, 0.0, 0.3)):
    settings = runtime.Options(compilation_cache='', tune_malloc=tune)
    faults = process.run_fresh(settings, _faults_a_call)
    assert low * pages <= faults <= high * pages
