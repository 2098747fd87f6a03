"""Tables and parameters of a bundle: `.npy` files, read without a copy.

`.npy` has no name for bfloat16: it lies as uint16 there, and the manifest tells
the dtype. An int8 table has its scales, float32, one a row, beside it as a
table `NAME.scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

PRECISIONS = ('float32', 'bfloat16', 'int8')
SCALE = '.scale'


def quantized(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns int8 in -127 to 127, and the scale of each row, float32.

  >>> quantized(np.array([[1.0, -0.5]], np.float32))[0].tolist()
  [[127, -64]]
  """
  table = np.asarray(table, np.float32)
  scale = np.max(np.abs(table), axis=1, initial=0) / np.float32(127)
  whole = np.rint(table / np.where(scale > 0, scale, 1)[:, None])
  return whole.astype(np.int8), scale


def save(path: pathlib.Path, array: np.ndarray) -> dict[str, Any]:
  """Writes an array; returns its dtype and shape for the manifest."""
  array = np.asarray(array, order='C')
  told = {'dtype': array.dtype.name, 'shape': list(array.shape)}
  if array.dtype.name == 'bfloat16':
    array = array.view(np.uint16)
  np.save(path, array, allow_pickle=False)
  return told


def load(path: pathlib.Path, told: Mapping[str, Any]) -> np.ndarray:
  """Returns an array that `save` wrote, memory-mapped.

  Raises:
    ValueError: it is not what the manifest tells.
  """
  array = np.load(path, mmap_mode='r', allow_pickle=False)
  # JAX has registered NumPy's bfloat16.
  array = array.view(np.dtype(told['dtype']))
  if list(array.shape) != told['shape']:
    raise ValueError(f'{path}: shape {array.shape}, not {told["shape"]}')
  return array


def on_device(path: pathlib.Path, manifest: Mapping[str, Any]) -> Any:
  """Returns what programs take, on the device; on a CPU nothing is copied."""
  import jax

  loaded = {
    name: load(path / told['file'], told)
    for kind in ('tables', 'parameters')
    for name, told in manifest[kind].items()
  }
  return jax.device_put(loaded)
