"""Reads the arrays of a PyTorch state dict, checked entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import difflib
from typing import Any

import numpy as np


class StateDict:
  """A state dict of which each entry is asked for, or is an error.

  What PyTorch counts batches with, `num_batches_tracked`, need not be.
  """

  def __init__(self, state: Mapping[str, Any]) -> None:
    self._arrays = {
      name.removeprefix('module.'): np.asarray(value)
      for name, value in state.items()
    }
    self._unused = {
      name for name in self._arrays if not name.endswith('.num_batches_tracked')
    }
    self._asked: list[str] = []

  def has(self, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in self._arrays)

  def same(self, one: str, other: str) -> bool:
    """Whether two names are there, or could be, for one array."""
    if one not in self._arrays or other not in self._arrays:
      return True
    return np.array_equal(self._arrays[one], self._arrays[other])

  def ignore(self, prefix: str) -> None:
    self._unused = {n for n in self._unused if not n.startswith(prefix)}

  def take(self, names: Sequence[str], shape: Sequence[int | str]) -> Any:
    """Returns the array that has one or more of some names.

    Args:
      names: the names that one array may have.
      shape: the expected sizes; a name in place of a number fits any size.

    Raises:
      ValueError: there is none, they differ, or the shape is another.
    """
    self._asked += names
    found = [name for name in names if name in self._arrays]
    wanted = f'[{", ".join(map(str, shape))}]'
    if not found:
      raise ValueError(f'state dict lacks {names[0]!r}: expected {wanted}.')
    array = self._arrays[found[0]]
    for name in found:
      self._unused.discard(name)
      own = self._arrays[name].shape
      fits = len(own) == len(shape) and all(
        isinstance(size, str) or size == n
        for size, n in zip(shape, own, strict=True)
      )
      if not fits:
        raise ValueError(f'{name!r} has shape {list(own)}: expected {wanted}.')
      if not np.array_equal(self._arrays[name], array, equal_nan=True):
        raise ValueError(
          f'{name!r} differs from {found[0]!r}: expected one array under both'
          ' names; choose the model, or plan, that has both.'
        )
    return array

  def one(self, name: str, *shape: int | str) -> Any:
    return self.take([name], shape)

  def layers(self, mlp: str) -> list[tuple[int, int]]:
    """Returns the dense layers of a network, in order: (number, outputs) each.

    Args:
      mlp: the name of the network; its layers are `MLP.NUMBER.weight`.
    """
    found = []
    for name, array in self._arrays.items():
      number = name.removeprefix(f'{mlp}.').removesuffix('.weight')
      if name == f'{mlp}.{number}.weight' and number.isdigit():
        if array.ndim == 2:
          found.append((int(number), array.shape[0]))
    return sorted(found)

  def finish(self) -> None:
    """Raises ValueError if anything was not asked for."""
    if not self._unused:
      return
    name = min(self._unused)
    close = difflib.get_close_matches(name, self._asked, n=1, cutoff=0)
    raise ValueError(
      f'state dict has unexpected {name!r}'
      f'{list(self._arrays[name].shape)}: this model has no such parameter'
      + (f'; the nearest is {close[0]!r}.' if close else '.')
    )
