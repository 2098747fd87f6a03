"""JAX's settings under which a run computes, whatever the process has set."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib


@contextlib.contextmanager
def of_runs() -> Iterator[None]:
  """Sets what decides the shapes, dtypes and random numbers of a run.

  Under 64-bit JAX, another default generator or strict promotion, a checkpoint
  would not fit the state that it is restored into, or a run would not go on as
  it began. Also a decorator; it holds for the calling thread.

  >>> import jax
  >>> with jax.enable_x64(True), of_runs():
  ...   print(jax.numpy.zeros(1).dtype)
  float32
  """
  import jax  # Entry points import JAX late.

  with (
    jax.enable_x64(False),
    jax.default_prng_impl('threefry2x32'),
    jax.threefry_partitionable(True),
    jax.numpy_dtype_promotion('standard'),
  ):
    yield
