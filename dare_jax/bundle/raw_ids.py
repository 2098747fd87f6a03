"""Raw values to dense ids, with NumPy alone, from memory-mapped files.

Whole numbers are searched in a sorted array. Texts are searched by a hash of 64
bits, and what is found is compared byte by byte.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from collections.abc import Sequence
import pathlib
import re
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax.logs import plain_values

NUMBERS, TEXTS = 'numbers', 'texts'
# Result of looking up a missing or unseen value.
_NONE = -1
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_ALL_BITS = (1 << 64) - 1
_BLOCK = 1 << 18
# Of lists as short as a request's candidates, what was looked up last is kept.
_FEW, _MOST_KEPT = 2048, 1 << 16
# Fewer texts are found faster one by one, without NumPy.
_FEW_TEXTS = 48


def save(
  folder: pathlib.Path,
  field: str,
  raw: Sequence[Any],
  ids: np.ndarray,
  is_text: bool,
) -> dict[str, Any]:
  """Writes the map of a field; returns what the manifest tells of it.

  Args:
    folder: the folder of the id maps.
    field: the name of the field, and of its files.
    raw: the distinct values of the log, all whole numbers or all texts.
    ids: int32 [n], the model's id of each value.
    is_text: whether the log has texts in this field.
  """
  if is_text:
    data, offsets = _joined(raw)
    hashes = _hashes(data, offsets)
    order = np.argsort(hashes, kind='stable')
    parts = {
      'bytes': data,
      'offsets': offsets,
      'hashes': hashes[order],
      'order': order.astype(np.int32),
      'ids': ids,
    }
  else:
    values = np.array(raw, np.int64)
    order = np.argsort(values)
    parts = {'numbers': values[order], 'ids': ids[order]}
  for part, array in parts.items():
    np.save(folder / f'{field}.{part}.npy', array, allow_pickle=False)
  return {'kind': TEXTS if is_text else NUMBERS, 'parts': list(parts)}


class RawIds:
  """The map of one field."""

  def __init__(
    self, folder: pathlib.Path, field: str, told: Mapping[str, Any]
  ) -> None:
    """Opens what `save` wrote."""
    self._field = field
    self._parts = {
      # Plain arrays over the mapped file are faster to read from.
      part: np.asarray(
        np.load(
          folder / f'{field}.{part}.npy', mmap_mode='r', allow_pickle=False
        )
      )
      for part in told['parts']
    }
    self._views = {part: x.data for part, x in self._parts.items()}
    self._is_text = told['kind'] == TEXTS
    self._kept: dict[str | int, int] = {}

  def __call__(self, raw: Any, unknown: int) -> np.ndarray:
    """Returns the ids of raw values, int32.

    Args:
      raw: a list, an array of NumPy, or a series of pandas or Polars.
      unknown: the id of a missing or unseen value.

    Raises:
      UsageError: a value that the log cannot have.
    """
    if type(raw) is list and len(raw) <= _FEW and _are_plain(raw):
      found = self._ids_of_few(raw)
    else:
      found = self._ids(raw)
    return np.where(found >= 0, found, np.int32(unknown))

  def _ids_of_few(self, raw: list[str | int]) -> np.ndarray:
    """Returns what `_ids` does. Safe to be called from many threads."""
    kept = self._kept
    if len(kept) >= _MOST_KEPT:
      kept = self._kept = {}  # Other threads may still read the old cache.
    missing = [value for value in raw if value not in kept]
    if missing:
      try:
        found = self._ids_of_missing(missing)
      except errors.UsageError:
        return self._ids(raw)  # Its error tells the place.
      kept.update(zip(missing, found, strict=True))
    return np.array([kept[value] for value in raw], np.int32)

  def _ids_of_missing(self, values: list[str | int]) -> list[int]:
    if self._is_text and len(values) < _FEW_TEXTS:
      return [self._id_of(value) for value in values]
    return self._ids(values).tolist()

  def _id_of(self, value: str | int) -> int:
    """Returns what `_ids` has for one value, of a log of texts."""
    found = self._id_of_text(str(value))
    if found == _NONE and type(value) is int and abs(value) <= 2**53:
      found = self._id_of_text(_float_text(value))
    return found

  def _id_of_text(self, text: str) -> int:
    view = self._views
    data = text.encode(errors='surrogatepass')
    known, offsets = view['hashes'], view['offsets']
    own = _hash(data)
    place = bisect.bisect_left(known, own)
    while place < len(known) and known[place] == own:
      row = view['order'][place]
      if view['bytes'][offsets[row] : offsets[row + 1]] == data:
        return view['ids'][row]
      place += 1
    return _NONE

  def _ids(self, raw: Any) -> np.ndarray:
    """Returns ids, int32; `_NONE` for missing and unseen values."""
    if not self._is_text:
      row = self._rows_of_numbers(raw)
    else:
      row = self._rows_of_values(raw)
    if not len(self._parts['ids']):
      return np.full(len(row), _NONE, np.int32)
    found = self._parts['ids'][np.maximum(row, 0)]
    return np.where(row >= 0, found, np.int32(_NONE))

  def some(self, count: int) -> list[Any]:
    """Returns raw values, at most `count`, from all over the map."""
    size = len(self._parts['ids'])
    places = np.linspace(0, size - 1, min(count, size)).astype(int)
    if not self._is_text:
      return self._parts['numbers'][places].tolist()
    data, offsets = self._parts['bytes'], self._parts['offsets']
    return [
      data[offsets[i] : offsets[i + 1]].tobytes().decode(errors='surrogatepass')
      for i in places
    ]

  def _rows_of_numbers(self, raw: Any) -> np.ndarray:
    known = self._parts['numbers']
    there: Any = np.True_
    if isinstance(raw, np.ndarray) and raw.dtype.kind == 'i' and raw.ndim == 1:
      values = raw.astype(np.int64, copy=False)
    elif type(raw) is list and all(type(value) is int for value in raw):
      values, there = _int64(raw)
    else:
      plain = plain_values.plain(self._field, raw)
      whole = plain_values.whole_numbers(self._field, plain)
      there = np.array([value is not None for value in whole], bool)
      values = np.array([value or 0 for value in whole], np.int64)
    if not len(known):
      return np.full(len(values), _NONE)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(there & (known[place] == values), place, _NONE)

  def _rows_of_values(self, raw: Any) -> np.ndarray:
    """Returns rows of texts; numbers are looked up as the log writes them."""
    plain: Sequence[plain_values.Plain]
    if type(raw) is list and _are_plain(raw):
      plain = raw  # It has that type already.
      row = self._rows_of_texts([*map(str, raw)])
    else:
      plain = plain_values.plain(self._field, raw)
      texts = ['' if value is None else str(value) for value in plain]
      row = self._rows_of_texts(texts)
      row[[value is None for value in plain]] = _NONE
    # A log of floats has them with a point, be they whole or not.
    places = [
      place
      for place in np.flatnonzero(row < 0).tolist()
      if isinstance(value := plain[place], int | float) and abs(value) <= 2**53
    ]
    if not places:
      return row
    written = self._rows_of_texts([_float_text(plain[i]) for i in places])
    for place, other in zip(places, written, strict=True):
      row[place] = other
      if other < 0 and isinstance(plain[place], float):
        raise plain_values.refusal(
          self._field, plain[place], place, 'the log has no such number'
        )
    return row

  def _rows_of_texts(self, texts: Sequence[str]) -> np.ndarray:
    data, offsets = _joined(texts)
    hashes = _hashes(data, offsets)
    known = self._parts['hashes']
    found = np.full(len(texts), _NONE)
    place = np.searchsorted(known, hashes)
    open_ = np.arange(len(texts))
    while True:
      # Rows with equal hashes are compared one after the other.
      open_ = open_[place[open_] < len(known)]
      open_ = open_[known[place[open_]] == hashes[open_]]
      if not len(open_):
        return found
      row = self._parts['order'][place[open_]]
      same = self._are_same(row, data, offsets, open_)
      found[open_[same]] = row[same]
      open_ = open_[~same]
      place[open_] += 1

  def _are_same(
    self, row: np.ndarray, data: np.ndarray, offsets: np.ndarray, asked: Any
  ) -> np.ndarray:
    """Returns whether known texts are those asked for, byte by byte."""
    start, own = self._parts['offsets'][row], offsets[asked]
    length = self._parts['offsets'][row + 1] - start
    same = length == offsets[asked + 1] - own
    length = np.where(same, length, 0)
    which = np.repeat(np.arange(len(row)), length)
    step = np.arange(len(which)) - np.repeat(np.cumsum(length) - length, length)
    known = self._parts['bytes'][start[which] + step]
    differ = which[known != data[own[which] + step]]
    same[differ] = False
    return same


def _are_plain(values: list[Any]) -> bool:
  """Returns whether values are texts and whole numbers of Python alone."""
  return {str, int}.issuperset(map(type, values))


def _int64(values: Sequence[int]) -> tuple[np.ndarray, Any]:
  try:
    return np.array(values, np.int64), np.True_
  except OverflowError:  # No log has such a number.
    info = np.iinfo(np.int64)
    there = np.array([info.min <= v <= info.max for v in values], bool)
    small = [v if ok else 0 for v, ok in zip(values, there, strict=True)]
    return np.array(small, np.int64), there


def _float_text(value: Any) -> str:
  """Returns a float as a log of floats has it, written by Polars."""
  return re.sub(r'e([-+]?)0*', r'e\1', repr(float(value)))


def _joined(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """Returns UTF-8 bytes of all texts, and where each begins and ends."""
  encoded = [text.encode(errors='surrogatepass') for text in texts]
  offsets = np.zeros(len(encoded) + 1, np.int64)
  np.cumsum([len(text) for text in encoded], out=offsets[1:])
  return np.frombuffer(b''.join(encoded), np.uint8), offsets


def _hash(text: bytes) -> int:
  """Returns what `_hashes` has for one text."""
  found = len(text) * int(_FACTOR)
  for first in range(0, len(text), 8):
    word = int.from_bytes(text[first : first + 8], 'little')
    mixed = (found ^ word) * int(_FACTOR) & _ALL_BITS
    found = mixed ^ (mixed >> int(_SHIFT))
  return found & _ALL_BITS


def _hashes(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  """Returns a hash of 64 bits of each text."""
  count = len(offsets) - 1
  blocks = [
    _hashes_of_block(data, offsets[first : min(first + _BLOCK, count) + 1])
    for first in range(0, count, _BLOCK)
  ]
  return np.concatenate(blocks) if blocks else np.zeros(0, np.uint64)


def _hashes_of_block(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  """Returns hashes: words of eight bytes, mixed one after the other."""
  length = np.diff(offsets)
  found = length.astype(np.uint64) * _FACTOR
  left = np.arange(len(length))
  for first in range(0, int(length.max(initial=0)), 8):
    left = left[length[left] > first]
    step = np.arange(first, first + 8)
    index = offsets[left, None] + step[None]
    inside = step[None] < length[left, None]
    taken = data[np.where(inside, index, 0)]
    word = np.where(inside, taken, 0).astype(np.uint8).view('<u8')[:, 0]
    mixed = (found[left] ^ word) * _FACTOR
    found[left] = mixed ^ (mixed >> _SHIFT)
  return found
