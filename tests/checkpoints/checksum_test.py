"""Checksums a little at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.checkpoints import checksum


def _of_blocks(array, chunk, monkeypatch):
  """The sum that a device makes for an array, `chunk` elements at a time."""
  with monkeypatch.context() as patch:
    patch.setattr(checksum, '_CHUNK', chunk)
    patch.setattr(checksum, '_FEW', -1)
    jax.clear_caches()
    found = checksum.of_values([jnp.zeros(3), array])
  jax.clear_caches()
  return found


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32', 'int8'])
@pytest.mark.quick_cases('bfloat16')
def test_a_checksum_is_that_of_all_chunks(dtype, monkeypatch):
  array = jnp.asarray(np.arange(7 * 11).reshape(11, 7) % 5).astype(dtype)
  whole = _of_blocks(array, 1 << 20, monkeypatch)
  for chunk in (1, 14, 28, 70):  # One row; chunks that do and do not fit.
    assert _of_blocks(array, chunk, monkeypatch) == whole


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int8', 'float64'])
@pytest.mark.parametrize('shape', [(), (5,), (11, 7), (2, 3, 4), (0, 3)])
@pytest.mark.quick_cases('shape2-float32', 'shape2-int8', 'shape0-float64')
def test_a_checksum_is_that_of_the_host(dtype, shape, monkeypatch):
  values = np.random.default_rng(0).integers(-50, 50, shape)
  with jax.enable_x64(dtype == 'float64'):
    array = jnp.asarray(values.astype(dtype))
    found = checksum.of_values([jnp.zeros(3), array])
    assert _of_blocks(array, 14, monkeypatch) == found


def test_each_bit_and_place_counts():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(40, 3)).astype(np.float32)
  start = checksum.of_values([jnp.asarray(values)])
  for row in range(40):
    changed = values.copy()
    changed[row, row % 3] = np.nextafter(changed[row, row % 3], 9)
    assert checksum.of_values([jnp.asarray(changed)]) != start
  assert checksum.of_values([jnp.asarray(values[::-1].copy())]) != start
  assert checksum.of_values([jnp.zeros(1), jnp.asarray(values)]) != start


def test_a_checksum_takes_little_memory():
  block = jax.ShapeDtypeStruct((1_000_000, 16), np.float32)
  seed = jax.ShapeDtypeStruct((), np.uint32)
  corner = jax.ShapeDtypeStruct((2,), np.uint32)
  compiled = checksum._sum.lower(block, seed, corner).compile()
  used = compiled.memory_analysis().temp_size_in_bytes
  assert used < 0.3 * 16e6 * 4
