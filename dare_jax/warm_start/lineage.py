"""The run that another one starts from: its data, and the ids that it knew.

Ids are matched by their raw values. What a run and those before it knew is kept
in its folder, so that it can be read when those are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import io

from etils import epath
import ml_collections
import numpy as np
import polars as pl

from dare_jax import errors
from dare_jax import storage
from dare_jax.data import options as data_options
from dare_jax.data import splits
from dare_jax.data.ids import known_ids
from dare_jax.experiments import experiment
from dare_jax.experiments import run_config
from dare_jax.experiments import run_data
from dare_jax.logs import id_map
from dare_jax.parallel import processes
from dare_jax.store import history_store
from dare_jax.store import set_members

FILE = 'known_ids.npz'
Known = Mapping[str, np.ndarray]
Store = history_store.HistoryStore


def known_before(
  config: ml_collections.ConfigDict, workdir: epath.Path, has_begun: bool
) -> Callable[[Store], Known] | None:
  """Returns what gives the ids of a store that earlier runs knew.

  Args:
    config: the config of a run.
    workdir: the folder of the run.
    has_begun: whether it has checkpoints; then its folder says what they knew.

  Returns:
    A function of the run's store that gives field -> bool [ids]. It raises
    UsageError where the earlier run, or its data, cannot be read. None: the
    run starts from no other one.
  """
  origin = config.train.init_from
  if origin is None:
    return None

  def known(store: Store) -> Known:
    saved = _load(workdir / FILE, store) if has_begun else None
    return _known_to(storage.locate(origin), store) if saved is None else saved

  return lambda store: processes.in_turn(lambda: known(store))


def _known_to(workdir: epath.Path, store: Store) -> Known:
  """Returns which ids of a store the run in a folder knew."""
  config = read_config(workdir)
  older = run_data.open_store(config, workdir)
  check_fields(workdir, older, store)
  known = None
  if config.train.init_from is not None:
    known = _load(workdir / FILE, older)
  if known is None:
    options = data_options.of_section(config.data)
    moments = splits.make_splits(older, options)['train']
    known = known_ids.rows_of_training(
      older, moments, options, set_members.of_store(older)
    )
  result = {}
  for field, flags in known.items():
    rows = matched_rows(workdir, older, store, field)
    result[field] = (rows >= 0) & flags[rows]
  return result


def save(workdir: epath.Path, run: experiment.Experiment) -> None:
  """Writes what `known_before` reads, if the run starts from another one.

  Raises:
    UsageError: it cannot be written.
  """
  if run.options.train.init_from is None:
    return
  file = io.BytesIO()
  known = known_ids.rows(run.known, run.sets)
  packed = {field: np.packbits(flags) for field, flags in known.items()}
  np.savez_compressed(file, allow_pickle=False, **packed)
  storage.write(workdir / FILE, file.getvalue())


def _load(path: epath.Path, store: Store) -> Known | None:
  """Returns what `save` wrote, None if there is nothing.

  Raises:
    UsageError: it is damaged, or of other data.
  """
  content = storage.read(path)
  if content is None:
    return None
  sizes = {
    field: store.vocab_sizes[field]
    for field in (*store.fields, *store.context_fields)
  }
  for field, own in set_members.of_store(store).items():
    sizes[field] = own.num_members
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as packed:
      known = {
        field: np.unpackbits(packed[field], count=size)
        for field, size in sizes.items()
      }
      is_whole = all(
        len(packed[field]) == -(-size // 8) for field, size in sizes.items()
      )
  except Exception as error:  # Whatever a damaged archive makes NumPy raise.
    raise _damaged(path, type(error).__name__) from None
  if not is_whole:
    raise _damaged(path, 'it is of other data')
  return {field: flags.astype(bool) for field, flags in known.items()}


def _damaged(path: epath.Path, why: str) -> errors.UsageError:
  return errors.UsageError(
    f'{path} cannot be read ({why}); put it back from a copy, or remove it: it'
    ' is made anew as long as the run of train.init_from and its data are'
    ' there.'
  )


def refusal(workdir: epath.Path, why: str) -> errors.UsageError:
  """Returns the error that a run cannot be started from."""
  return errors.UsageError(f'train.init_from={workdir}: {why}')


def read_config(workdir: epath.Path) -> ml_collections.ConfigDict:
  """Returns the config of the run in a folder.

  Raises:
    UsageError: there is none.
  """
  if not (workdir / 'config.json').exists():
    raise refusal(workdir, 'no run there (config.json is missing).')
  return run_config.load(workdir)


def check_fields(workdir: epath.Path, older: Store, store: Store) -> None:
  """Checks that two logs have the same fields.

  Raises:
    UsageError: they differ.
  """
  for kind in ('fields', 'context_fields'):
    old, new = (getattr(s, kind) for s in (older, store))
    if old != new:
      raise refusal(
        workdir,
        f'its data has the {kind.replace("_", " ")} {", ".join(old)}, but'
        f' this run has {", ".join(new)}; they must be the same.',
      )
  odd = sorted(older.sets.keys() ^ store.sets.keys())
  if odd:
    raise refusal(
      workdir,
      f'{odd[0]} has sets in one of the two logs, but not in the other; name'
      ' the same fields in data.columns.sets.',
    )


def _raw_rows(store: Store, field: str) -> pl.Series:
  """Returns the raw values of the rows of a field's tables."""
  raw = store.raw_ids(field)
  if field not in store.sets:
    return raw
  return set_members.of_names(raw, store.sets[field]).raw


def matched_rows(
  workdir: epath.Path, older: Store, store: Store, field: str
) -> np.ndarray:
  """Returns the id that each id of a field has in an older store.

  Ids are matched by their raw values; in a field of sets, those of members.

  Args:
    workdir: the folder of the older run, for errors.
    older: its store.
    store: the store of the new run.
    field: the field.

  Returns:
    int64 [ids]; -1 where the older store has no such value.

  Raises:
    UsageError: one store has numbers where the other has text.
  """
  known, raw = (_raw_rows(s, field) for s in (older, store))
  if known.dtype != raw.dtype:
    raise refusal(
      workdir,
      f'its raw ids of {field} are {known.dtype}, but this run has'
      f' {raw.dtype}; prepare both logs with the same type.',
    )
  found = id_map.lookup(known, raw)
  if len(raw) and found.null_count() == len(raw):
    raise refusal(
      workdir,
      f'it knew no {field} of this log; are these ids of the same kind?',
    )
  special = np.arange(id_map.FIRST)
  return np.concatenate([special, found.fill_null(-1).to_numpy()])
