"""Checks what user states are built of, appended to and searched with.

Else a shape that broadcasts, or a mask of another order, would be searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dare_jax import shapes

_NONE: Mapping[str, Any] = {}
_EXPECTED = 'expected padding first and then behaviors, the most recent last'


def histories(
  keys: Any,
  mask: Any,
  category: Any,
  match_ids: Mapping[str, Any] = _NONE,
  time: Any = None,
) -> None:
  """Checks what a state is built of: arguments of `user_state.build`.

  Raises:
    ValueError: shapes that do not fit, or, outside of `jit`, a mask that is
      True before it is False.
  """
  if keys.ndim != 3:
    raise ValueError(f'keys {keys.shape}: expected [users, behaviors, dims].')
  _is('mask', mask, keys.shape[:2])
  if category is not None:
    _is('category', category, keys.shape[:2])
  for field, ids in match_ids.items():
    _is(f'match_ids[{field!r}]', ids, keys.shape[:2])
  if time is not None:
    _is('time', time, keys.shape[:2])
  if isinstance(mask, jax.core.Tracer):
    return
  wrong = np.any(np.diff(np.asarray(mask).astype(np.int8)) < 0, axis=1)
  if wrong.any():
    raise ValueError(f'mask of user {int(wrong.argmax())}: {_EXPECTED}.')


def times(state: Any, given: Any, shape: tuple[shapes.Size, ...]) -> None:
  """Checks the times that a state is given, beside the times that it holds.

  Args:
    state: the state.
    given: times of one more behavior of each user, or of a search; or None.
    shape: of these.

  Raises:
    ValueError: a state without times, or none given to one that has them; or
      another shape.
  """
  if (state.time is None) != (given is None):
    held = 'no' if state.time is None else 'the'
    raise ValueError(
      f'the state holds {held} times of behaviors: build, append and search all'
      ' take times, or none does.'
    )
  if given is not None:
    _is('times', given, shape)


def precision(given: str, known: Sequence[str]) -> None:
  """Checks the precision in which keys are to be held.

  Raises:
    ValueError: unknown.
  """
  if given not in known:
    raise ValueError(
      f'precision={given!r}: expected one of {", ".join(known)}.'
    )


def history_length(given: Any) -> None:
  """Checks how far back a state is to show behaviors.

  Raises:
    ValueError: no whole number, or none above 0.
  """
  is_whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
  if not is_whole or given < 1:
    raise ValueError(
      f'history_length={given!r}: expected a whole number, 1 or more: the'
      " model's, or that of behaviors to be shown all the same."
    )


def newest(
  state: Any, keys: Any, category: Any, match_ids: Mapping[str, Any] = _NONE
) -> None:
  """Checks one more behavior of each user: arguments of `user_state.append`.

  Raises:
    ValueError: shapes that do not fit.
  """
  users = state.newest.shape[0]
  _is('keys', keys, (users, state.width))
  _categories(state, category)
  if category is not None:
    _is('category', category, (users,))
  _match_fields(state, match_ids)
  for field, ids in match_ids.items():
    _is(f'match_ids[{field!r}]', ids, (users,))


def targets(
  state: Any,
  query: Any,
  bias: Any,
  table: Any,
  match_ids: Mapping[str, Any] = _NONE,
) -> None:
  """Checks what a state is searched with: arguments of `user_state.search`.

  Raises:
    ValueError: shapes that do not fit, or fewer positions than a state has.
  """
  _categories(state, table)
  width = state.width + (0 if table is None else table.shape[1])
  if query.ndim != 3 or (query.shape[0], query.shape[2]) != (
    state.newest.shape[0],
    width,
  ):
    raise ValueError(
      f'query {query.shape}: expected [{state.newest.shape[0]} users,'
      f' candidates, {width}], from Ranker.encode_targets without the axis of'
      ' moments.'
    )
  _match_fields(state, match_ids)
  for field, ids in match_ids.items():
    _is(f'matching.ids[{field!r}]', ids, (query.shape[0], 1, query.shape[1]))
  if bias.ndim != 1 or bias.shape[0] <= state.capacity:
    raise ValueError(
      f'bias_by_distance {bias.shape}: expected the distances 0 to'
      f' {state.capacity}; take both from Ranker.encode_targets with'
      ' length=state.capacity.'
    )


def backend(given: str | None, known: Sequence[str]) -> None:
  """Checks by what means a state is to be searched.

  Raises:
    ValueError: unknown.
  """
  if given is not None and given not in known:
    raise ValueError(
      f'backend={given!r}: expected one of {", ".join(known)}, or None.'
    )


def _is(name: str, value: Any, shape: tuple[shapes.Size, ...]) -> None:
  if tuple(value.shape) != tuple(shape):
    raise ValueError(
      f'{name} {tuple(value.shape)}: expected {tuple(shape)}, as the users'
      ' and their keys are.'
    )


def _match_fields(state: Any, given: Mapping[str, Any]) -> None:
  """Refuses ids of other fields than the state holds."""
  if set(state.match_ids) != set(given):
    held, told = (
      ', '.join(sorted(x)) or 'none' for x in (state.match_ids, given)
    )
    raise ValueError(
      f'match fields: the state holds {held}, given were {told}: build, append'
      ' and search all take the fields of model.match_fields.'
    )


def _categories(state: Any, given: Any) -> None:
  """Refuses categories where the state holds none, and the reverse."""
  if (state.category is None) != (given is None):
    held = 'no' if state.category is None else 'the'
    raise ValueError(
      f'the state holds {held} categories of behaviors: build, append and'
      ' search all take categories, or none does.'
    )
