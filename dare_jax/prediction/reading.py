"""From blocks of an input to moments and targets, in a model's ids."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses

import numpy as np
import polars as pl

from dare_jax.logs import derived_fields
from dare_jax.prediction import asked as asked_lib
from dare_jax.prediction import blocks
from dare_jax.prediction import columns as columns_lib
from dare_jax.prediction import history_log
from dare_jax.prediction import raw_ids
from dare_jax.prediction.scorers import scorer as scorer_lib

_REQUIRED = ('user', 'item', 'category', 'time')
_SHOWN = 3


@dataclasses.dataclass
class Unknown:
  """Rows whose user is not in the log, or whose item the model does not know.

  Attributes:
    users: rows of users that the log does not have.
    items: rows, or candidates, of items that the model does not know.
    examples: some of these users and items.
  """

  users: int = 0
  items: int = 0
  examples: dict[str, list[str]] = dataclasses.field(
    default_factory=lambda: {'users': [], 'items': []}
  )

  def note(self, kind: str, is_unknown: np.ndarray, raw: pl.Series) -> None:
    """Counts rows, and keeps some of their values as examples.

    Args:
      kind: 'users' or 'items'.
      is_unknown: bool [n], which rows are unknown.
      raw: [n], their raw values.
    """
    setattr(self, kind, getattr(self, kind) + int(is_unknown.sum()))
    own = self.examples[kind]
    if len(own) < _SHOWN and is_unknown.any():
      shown = raw.filter(pl.Series(is_unknown)).unique(maintain_order=True)
      own += [f'{value!r:.40}' for value in shown.head(_SHOWN - len(own))]

  def add(self, other: Mapping[str, object]) -> None:
    """Adds the counts of another part, as `dataclasses.asdict` returns them."""
    part = Unknown(**other)  # type: ignore[arg-type]
    for kind in ('users', 'items'):
      setattr(self, kind, getattr(self, kind) + getattr(part, kind))
      own = self.examples[kind]
      fresh = [text for text in part.examples[kind] if text not in own]
      own += fresh[: _SHOWN - len(own)]


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads columns by their roles.

  Attributes:
    scorer: the model that scores.
    logs: the logs in which an item's last values are looked up, one after
      another; the first is the log of the histories.
    names: what columns are called.
  """

  scorer: scorer_lib.Scorer
  logs: tuple[history_log.HistoryLog, ...]
  names: columns_lib.Names

  def moments(
    self, block: blocks.Block, found: columns_lib.Found, unknown: Unknown
  ) -> asked_lib.Moments:
    """Returns the moments of a block's rows.

    Args:
      block: rows of the input.
      found: which of its columns hold what.
      unknown: counts the rows whose user the log does not have.

    Raises:
      UsageError: a value that is no user, time or context of the log.
    """
    log = self.logs[0]
    column = self._column(block, found, 'user')
    user = log.users(column)
    unknown.note('users', user == log.store.num_users, column.values)
    time = self._column(block, found, 'time') if found.get('time') else None
    context = {
      field: self.scorer.of_users(field, column)
      if found.get(field) is None
      else self.scorer.ids(field, self._column(block, found, field))
      for field in self.scorer.context_fields
    }
    now = log.moments(time, len(user)) if self.scorer.reads_times else None
    return asked_lib.moments(user, log.ends(user, time), context, now)

  def targets(
    self, block: blocks.Block, found: columns_lib.Found, unknown: Unknown
  ) -> dict[str, np.ndarray]:
    """Returns the model's ids of a block's targets: field -> int32 [n].

    A field that the input lacks has the value last seen with the item, and so
    has an empty category.

    Args:
      block: rows of the input.
      found: which of its columns hold what.
      unknown: counts the rows whose item the model does not know.

    Raises:
      UsageError: a value that cannot be an id.
    """
    item = self._column(block, found, 'item')
    ids = {'item': self.scorer.ids('item', item)}
    is_unknown = self.scorer.is_unknown('item', ids['item'])
    unknown.note('items', is_unknown, item.values)
    for field in self.scorer.fields[1:]:
      if derived_fields.source(field) == 'item':
        ids[field] = self.scorer.ids(field, item)
        continue
      if found.get(field) is None:
        ids[field] = self._last_values(field, item)
        continue
      column = self._column(block, found, field)
      ids[field] = self.scorer.ids(field, column)
      if field == 'category' and column.values.null_count():
        absent = column.values.is_null().to_numpy()
        ids[field] = np.where(
          absent, self._last_values(field, item), ids[field]
        )
    return {field: values.astype(np.int32) for field, values in ids.items()}

  def _last_values(self, field: str, item: raw_ids.Column) -> np.ndarray:
    ids = self.logs[0].last_values(field, item)
    for log in self.logs[1:]:
      is_open = self.scorer.is_unknown(field, ids)
      if is_open.any():
        ids = np.where(is_open, log.last_values(field, item), ids)
    return ids

  def _column(
    self, block: blocks.Block, found: columns_lib.Found, role: str
  ) -> raw_ids.Column:
    name = found.by_role[role]
    if_empty = None
    if role not in _REQUIRED and self.scorer.has_value(role, ''):
      if_empty = ''  # In a further field, it is a value of its own.
    values = block.columns[name]
    if role != 'time' or values.dtype == pl.String:
      values = raw_ids.plain(values, self.names.missing, if_empty)
    return raw_ids.Column(values, name, found.path, block.first)


def roles(
  scorer: scorer_lib.Scorer, has_items: bool = True
) -> tuple[list[str], list[str]]:
  """Returns the roles of columns that must be there, and that may be.

  Args:
    scorer: the model that scores.
    has_items: whether each row has a target.
  """
  known = scorer.user_fields
  asked = [f for f in scorer.context_fields if f not in known]
  if not has_items:
    return ['user', *asked], ['time', *known]
  further = derived_fields.given(scorer.fields)[1:]
  return ['user', 'item', *asked], ['time', *further, *known]
