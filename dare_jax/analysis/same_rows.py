"""Whether runs were tested on the same rows, with whichever further fields.

The further fields of a log, such as brands, change neither the users, items
and categories of its rows nor the negatives that are drawn: a run that reads
them and one that does not can be compared row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath
import numpy as np

from dare_jax import errors
from dare_jax import storage
from dare_jax.analysis import source
from dare_jax.experiments import run_config
from dare_jax.experiments import run_data
from dare_jax.store import history_store

_TABLES = ('behaviors', 'impressions')
# Fields of data that name further columns.
_FURTHER = (
  'data.fields',
  'data.user_fields',
  'data.columns.fields',
  'data.columns.context',
  'data.columns.user_fields',
)
# Fields of data that change neither the rows of a split nor what they see.
_FREE_FIELDS = (
  'data.input',
  'data.data_dir',
  'data.prefetch',
  'data.max_malformed_share',
  'data.max_padding',
  'data.group_candidates',
  'data.fresh_negatives',
  'data.reshuffle',
  'data.unknown_rate',
  *_FURTHER,
  'data.columns.numbers',
  'data.columns.sets',
  'data.columns.set_separator',
)


def widest(runs: Sequence[source.Source]) -> int:
  """Returns the place of the first run that reads the most further fields."""
  return int(np.argmax([len(_further(run)) for run in runs]))


def check(runs: Sequence[source.Source]) -> None:
  """Checks that the rows of the run with the most fields are those of all.

  Raises:
    UsageError: another log or other rows, or no run reads the fields of all.
  """
  first, wide = runs[0], runs[widest(runs)]
  for other in runs:
    _check_configs(first, other)
    missing = _further(other) - _further(wide)
    if missing:
      raise errors.UsageError(
        f'--runs: {other.workdir} reads {", ".join(sorted(missing))}, which'
        f' {wide.workdir} does not; analyse them with a run that reads the'
        ' fields of both, or by themselves.'
      )
  stores: dict[str, history_store.HistoryStore] = {}
  for other in runs:
    if other.data_fingerprint == wide.data_fingerprint:
      continue
    for run in (wide, other):
      if run.data_fingerprint not in stores:
        place = epath.Path(storage.locate(run.workdir))
        stores[run.data_fingerprint] = run_data.open_store(run.config, place)
    if not _holds(*(stores[run.data_fingerprint] for run in (wide, other))):
      raise errors.UsageError(
        f'--runs: {wide.workdir} and {other.workdir} were trained on different'
        ' data; analyse them by themselves.'
      )


def _further(run: source.Source) -> set[str]:
  fields = run_config.flatten(run.config)
  return {name for field in _FURTHER for name in fields[field]}


def _check_configs(first: source.Source, other: source.Source) -> None:
  ours, theirs = (run_config.flatten(run.config) for run in (first, other))
  for field in sorted({*ours, *theirs}):
    if not field.startswith('data.') or field in _FREE_FIELDS:
      continue
    if ours[field] != theirs[field]:
      raise errors.UsageError(
        f'--runs: {field} is {ours[field]} in {first.workdir} and'
        f' {theirs[field]} in {other.workdir}; analyse runs over the same rows'
        ' together, others by themselves.'
      )


def _holds(
  wide: history_store.HistoryStore, other: history_store.HistoryStore
) -> bool:
  """Whether a store has all that another has, the ids included."""
  named = {*other.vocab_sizes}
  return (
    all(_same_table(getattr(wide, t), getattr(other, t)) for t in _TABLES)
    and named <= {*wide.vocab_sizes}
    and all(wide.raw_ids(f).equals(other.raw_ids(f)) for f in sorted(named))
  )


def _same_table(
  wide: history_store.Table | None, other: history_store.Table | None
) -> bool:
  if wide is None or other is None:
    return wide is other
  return np.array_equal(wide.offsets, other.offsets) and all(
    name in wide.columns and np.array_equal(wide.columns[name], values)
    for name, values in other.columns.items()
  )
