"""An encoded log in memory: dense ids, grouped by user, in time order."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses

import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax.logs import id_map
from dare_jax.logs import raw_log
from dare_jax.logs import raw_times
from dare_jax.logs import time_units
from dare_jax.logs.values import set_values


@dataclasses.dataclass(frozen=True)
class LogSchema:
  """What is specific to one log.

  Attributes:
    fields: further categorical fields of a behavior, besides item and category.
    context_fields: fields of the moment that only the head sees.
    has_labels: whether rows are impressions with a 0/1 `label`.
    sort_by_time: order a user's rows by time (stable); else keep file order.
    shuffle_sessions: shuffle rows of one user with equal time stamps (seeded),
      where the file's order inside a session means nothing.
    numbers: names of the further fields that hold ranges of numbers.
    user_fields: those of the context fields that are known for a user.
    sets: field -> separator of the further fields that hold `set_values`.
  """

  fields: tuple[str, ...] = ()
  context_fields: tuple[str, ...] = ()
  has_labels: bool = False
  sort_by_time: bool = True
  shuffle_sessions: bool = False
  numbers: tuple[str, ...] = ()
  user_fields: tuple[str, ...] = ()
  sets: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    if self.shuffle_sessions and not self.sort_by_time:
      raise ValueError('shuffle_sessions needs sort_by_time=True.')

  @property
  def id_fields(self) -> tuple[str, ...]:
    return ('item', 'category', *self.fields, *self.context_fields)


@dataclasses.dataclass
class EventLog:
  """All rows, grouped by user.

  Attributes:
    offsets: int64 [users + 1]; rows of user u are offsets[u]:offsets[u + 1].
    columns: `<field>_id` int32 [rows], `timestamp` int64 [rows] and, for logs
      with impressions, `label` int8 [rows].
    raw_ids: field ('user' included) -> series of its raw values; position i has
      the dense id i + 2.
    report: what was read and dropped.
  """

  offsets: np.ndarray
  columns: dict[str, np.ndarray]
  raw_ids: dict[str, pl.Series]
  report: raw_log.RowReport

  @property
  def num_users(self) -> int:
    return len(self.offsets) - 1


_SESSION_SHUFFLE_SEED = 20241003


def encode(
  blocks: Iterable[pl.DataFrame],
  schema: LogSchema,
  report: raw_log.RowReport,
) -> EventLog:
  """Encodes raw blocks and groups them by user, users by first appearance.

  Needs about 45 bytes of memory a row at its peak.

  Raises:
    UsageError: no row was kept, or a set has too many members.
  """
  maps = {field: id_map.IdMap() for field in ('user', *schema.id_fields)}
  parts: dict[str, list[np.ndarray]] = {name: [] for name in maps}
  clock = raw_times.Clock()
  if schema.has_labels:
    parts['label'] = []
  for block in blocks:
    for field, mapping in maps.items():
      parts[field].append(mapping.encode(block[field]))
    clock.add(block['time'])
    if schema.has_labels:
      parts['label'].append(block['label'].to_numpy().astype(np.int8))
  if not sum(len(part) for part in parts['user']):
    raise errors.UsageError(
      'the log has no usable rows'
      f' ({report.rows_read} read; dropped: {report.dropped or "none"};'
      f' the first malformed: {"; ".join(report.examples[:1]) or "none"}).'
    )
  columns = {}
  for name in list(parts):
    columns[name] = np.concatenate(parts.pop(name))
  report.rows_kept = len(columns['user'])
  times = clock.finish()
  columns['time'] = times.values
  report.time_unit, report.time_scale = times.unit, times.scale
  _note_units(times, report)
  order = _order(columns['user'], columns['time'], schema)
  user = columns.pop('user')
  counts = np.bincount(user, minlength=maps['user'].vocab_size)
  offsets = np.concatenate([[0], np.cumsum(counts[id_map.FIRST :])])
  if order is not None:
    for name in columns:
      columns[name] = columns[name][order]
  _note_ambiguous_categories(columns, report)
  named = {
    {'time': 'timestamp', 'label': 'label'}.get(name, f'{name}_id'): column
    for name, column in columns.items()
  }
  named['timestamp'] = named['timestamp'].astype(np.int64, copy=False)
  raw_ids = {field: mapping.raw() for field, mapping in maps.items()}
  for field, separator in schema.sets.items():
    set_values.check(field, raw_ids[field], separator)
  return EventLog(offsets.astype(np.int64, copy=False), named, raw_ids, report)


def _order(
  user: np.ndarray, time: np.ndarray, schema: LogSchema
) -> np.ndarray | None:
  """Returns the row order by user (and time), or None if it is that already."""
  keys = {'user': user}
  if schema.sort_by_time:
    keys['time'] = time
  if schema.shuffle_sessions:
    rng = np.random.default_rng(_SESSION_SHUFFLE_SEED)
    keys['shuffle'] = rng.permutation(len(user))
  elif _is_ordered(user, time, schema):
    return None
  frame = pl.DataFrame(keys).with_row_index('row')
  return frame.sort(list(keys), maintain_order=True)['row'].to_numpy()


def _is_ordered(user: np.ndarray, time: np.ndarray, schema: LogSchema) -> bool:
  late = user[1:] < user[:-1]
  if schema.sort_by_time:
    late |= (user[1:] == user[:-1]) & (time[1:] < time[:-1])
  return not late.any()


def _note_units(times: raw_times.Times, report: raw_log.RowReport) -> None:
  """Notes numbers of several units, or zeros beside times of our days."""
  if times.unit is not None:
    return
  values = times.values
  counts = time_units.counts(
    values // times.scale if times.scale > 1 else values
  )
  if sum(counts.values()) == len(times.values):
    if len(counts) == 1:
      return
  zeros = int((times.values == 0).sum())
  if len(counts) > 1:
    mixed = ', '.join(
      f'{raw_log.counted(n, "row", "rows")} like {unit}'
      for unit, n in counts.items()
    )
    report.notes.append(f'times look mixed: {mixed}; give all in one unit')
  if counts and zeros:
    report.notes.append(
      f'{raw_log.counted(zeros, "row has", "rows have")} time 0, which may'
      ' stand for a missing one'
    )


def _note_ambiguous_categories(
  columns: dict[str, np.ndarray], report: raw_log.RowReport
) -> None:
  frame = pl.DataFrame({k: columns[k] for k in ('item', 'category')})
  count = frame.unique().group_by('item').len().filter(pl.col('len') > 1)
  if len(count):
    report.notes.append(
      f'{raw_log.counted(len(count), "item occurs", "items occur")} with'
      " several categories; a behavior keeps its own row's, a sampled"
      " negative takes the item's last one (with by_time, that of the row"
      ' drawn)'
    )
