"""From the tensors of several users to one request for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dare_jax.server import problems
from dare_jax.server import served as served_lib

_MOST_USERS = 1024


class _Rows:
  """Inputs, taken row by row as requests are made of them."""

  def __init__(self, inputs: dict[str, Any], count: int) -> None:
    self._inputs, self._count = dict(inputs), count

  def take(self, name: str, num_axes: int) -> list[Any]:
    """Returns the rows of an input that must be there; it is used up."""
    if name not in self._inputs:
      raise problems.bad(f'inputs.{name}', 'this input is missing')
    shape, values = self._inputs.pop(name)
    if len(shape) != num_axes or shape[0] != self._count:
      raise problems.bad(
        f'inputs.{name}',
        f'expected {num_axes} axes, the first of {self._count}; got {shape}',
      )
    if num_axes == 1:
      return values
    width = shape[1]
    return [
      values[row * width : (row + 1) * width] for row in range(self._count)
    ]

  def has(self, name: str) -> bool:
    return name in self._inputs

  def check_all_used(self) -> None:
    for name in self._inputs:
      raise problems.bad(f'inputs.{name}', 'the model has no such input')


def of_users(
  served: served_lib.Served, inputs: dict[str, Any], explain: bool
) -> list[Any]:
  """Returns a `ScoreRequest` for each user.

  Args:
    served: the bundle that answers.
    inputs: name -> (shape, values in row-major order).
    explain: whether the behaviors found are asked for, too.

  Raises:
    Problem: an input that is missing, unknown or of another shape.
  """
  bundle, made = served.bundle, served.messages
  first = f'candidates.{made.fields[0]}'
  shape = inputs.get(first, ([0],))[0]
  count = shape[0] if shape else 0
  if not 0 < count <= _MOST_USERS or len(shape) != 2:
    raise problems.bad(
      f'inputs.{first}', f'expected a shape [1 to {_MOST_USERS}, candidates]'
    )
  if not 0 < shape[1] <= made.max_candidates:
    raise problems.bad(
      f'inputs.{first}', f'expected 1 to {made.max_candidates} candidates'
    )
  rows = _Rows(inputs, count)
  users = rows.take('user_id', 1) if rows.has('user_id') else None
  histories = [msgspec.UNSET] * count if users else _histories(rows, served)
  candidates = _structs(rows, 'candidates', made.fields, made.Candidate)
  context = [
    made.Context(*values)
    for values in zip(
      *[
        rows.take(f'context.{name}', 1)
        if rows.has(f'context.{name}') or name not in bundle.user_fields
        else [msgspec.UNSET] * count
        for name in made.context_fields
      ],
      strict=True,
    )
  ] or [made.Context()] * count
  moments: list[dict[str, Any]] = [{}] * count
  if made.times is not None and rows.has('time'):
    moments = [{'time': one} for one in rows.take('time', 1)]
  rows.check_all_used()
  return [
    made.ScoreRequest(
      candidates=candidates[row],
      user_id=users[row] if users else msgspec.UNSET,
      history=histories[row],
      context=context[row],
      explain=explain,
      **moments[row],
    )
    for row in range(count)
  ]


def _histories(rows: _Rows, served: served_lib.Served) -> list[Any]:
  lengths = None
  if rows.has('history_length'):
    lengths = rows.take('history_length', 1)
  made = served.messages
  fields: tuple[str, ...] = made.fields
  if made.times is not None and rows.has('history.time'):
    fields = (*fields, 'time')
  histories = _structs(rows, 'history', fields, made.Behavior)
  if lengths is None:
    return histories
  for row, length in enumerate(lengths):
    most = len(histories[row])
    if not isinstance(length, int) or not 0 <= length <= most:
      raise problems.bad(
        'inputs.history_length', f'expected 0 to {most}, got {length!r:.40}'
      )
  return [
    rows[:length] for rows, length in zip(histories, lengths, strict=True)
  ]


def _structs(
  rows: _Rows, side: str, fields: Sequence[str], kind: Any
) -> list[list[Any]]:
  """Returns, for each user, candidates or behaviors."""
  columns = [rows.take(f'{side}.{field}', 2) for field in fields]
  made = []
  for row in zip(*columns, strict=True):
    if len({len(values) for values in row}) > 1:
      raise problems.bad(f'inputs.{side}', 'its fields have different shapes')
    made.append([kind(*values) for values in zip(*row, strict=True)])
  return made
