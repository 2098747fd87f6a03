"""Checks of what a bundle is asked to score: fields, lengths, ranges of ids."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import numpy as np

from dare_jax import errors

Ids = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class IdCheck:
  """What fits a bundle.

  Attributes:
    fields: the fields of a behavior and of a candidate.
    context_fields: the fields of a moment, for the head alone.
    times: what behaviors and moments have besides, which is no id: their time,
      if the model reads it.
    rows: field -> number of its ids.
  """

  fields: tuple[str, ...]
  context_fields: tuple[str, ...]
  times: tuple[str, ...]
  rows: Mapping[str, int]

  def candidates(self, given: Ids) -> dict[str, np.ndarray]:
    """Returns the ids of candidates, checked: field -> int32 [c].

    Raises:
      UsageError: other fields, several lengths, or ids beyond the tables.
    """
    return self._ids_of('candidates', given, self.fields)

  def behaviors(self, name: str, given: Ids) -> dict[str, np.ndarray]:
    """Returns the ids and times of behaviors, checked: field -> int32 [l].

    Args:
      name: what an error calls them.
      given: field -> [l], oldest first.

    Raises:
      UsageError: other fields, several lengths, or ids beyond the tables.
    """
    return self._ids_of(name, given, (*self.fields, *self.times))

  def context(self, context: Mapping[str, int]) -> dict[str, int]:
    """Returns the ids and the time of a moment, checked.

    Raises:
      UsageError: other fields, or an id beyond its table.
    """
    fields = (*self.context_fields, *self.times)
    if set(context) != set(fields):
      raise errors.UsageError(
        f'context: expected the fields {", ".join(fields) or "none"}, got'
        f' {", ".join(map(str, context)) or "none"}.'
      )
    for field in self.context_fields:
      self._check_range(f'context: {field}', field, np.asarray(context[field]))
    return {field: int(context[field]) for field in fields}

  def _ids_of(
    self, name: str, given: Ids, fields: tuple[str, ...]
  ) -> dict[str, np.ndarray]:
    if set(given) != set(fields):
      raise errors.UsageError(
        f'{name}: expected the fields {", ".join(fields)}, got'
        f' {", ".join(map(str, given)) or "none"}.'
      )
    ids = {f: np.asarray(given[f], np.int32) for f in fields}
    if len({own.shape for own in ids.values()}) > 1 or ids['item'].ndim != 1:
      shapes = [f'{own.shape} of {field}' for field, own in ids.items()]
      raise errors.UsageError(
        f'{name}: expected as many ids of each field, one after the other, got'
        f' {", ".join(shapes)}.'
      )
    for field in self.fields:
      self._check_range(f'{name}: {field}', field, ids[field])
    return ids

  def _check_range(self, name: str, field: str, ids: np.ndarray) -> None:
    rows = self.rows[field]
    if ids.size and (ids.min() < 0 or ids.max() >= rows):
      raise errors.UsageError(
        f'{name}: ids from {ids.min()} to {ids.max()}: expected 0 to'
        f' {rows - 1}, as Bundle.ids gives them.'
      )
