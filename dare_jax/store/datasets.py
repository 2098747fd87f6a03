"""The datasets by name, and the way from a raw log to an open history store."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import hashlib
import importlib
import io
import json
import os
import pathlib
import shutil
import sys
import time
from typing import Any

import polars as pl
import tensorflow_datasets as tfds
import tqdm

from dare_jax import errors
from dare_jax.logs import options as log_options
from dare_jax.logs import raw_log
from dare_jax.logs.builders import base
from dare_jax.process import locks
from dare_jax.store import history_store
from dare_jax.store import log_origin
from dare_jax.store import log_reading
from dare_jax.store import store_writer

# Dataset name -> builder class, and the data fields that shape its records.
# `input` is not among them: a log may be moved or removed once it is prepared.
# Which one a store was made from is checked by `log_origin`.
_LOG_FIELDS = ('sort_by_time', 'max_malformed_share')
_SYNTHETIC_FIELDS = (
  'num_users',
  'num_items',
  'num_categories',
  'events_per_user',
  'max_events',
  'events_sigma',
  'num_partners',
  'self_share',
  'recency_scale',
  'relevance',
  'item_exponent',
  'category_exponent',
  'synthetic_seed',
)
DATASETS: Mapping[str, tuple[str, tuple[str, ...]]] = {
  'complete_journey': (
    'complete_journey.CompleteJourney',
    ('fields', 'user_fields'),
  ),
  'taobao': ('taobao.Taobao', _LOG_FIELDS),
  'tmall': ('tmall.Tmall', _LOG_FIELDS),
  'movielens_1m': ('movielens_1m.Movielens1m', ('fields',)),
  'synthetic_lifelong': (
    'synthetic_lifelong.SyntheticLifelong',
    _SYNTHETIC_FIELDS,
  ),
  'csv_log': ('csv_log.CsvLog', (*_LOG_FIELDS, 'columns')),
}
_LATER_COLUMNS = ('missing', 'numbers', 'separator', 'sets', 'user_fields')
_READ_USERS = 512
_WAIT_SECONDS = 0.2


def builder_class(name: str) -> tuple[type[base.LogBuilder], tuple[str, ...]]:
  """Returns the TFDS builder of a dataset and the fields that shape it.

  Raises:
    UsageError: unknown name.
  """
  if name not in DATASETS:
    raise errors.UsageError(
      f'data.name={name!r}: expected one of {", ".join(DATASETS)}.'
    )
  path, fields = DATASETS[name]
  module, attribute = path.rsplit('.', 1)
  loaded = importlib.import_module(f'dare_jax.logs.builders.{module}')
  return getattr(loaded, attribute), fields


def shaping_hash(data: log_options.LogOptions, fields: tuple[str, ...]) -> str:
  """Returns a hash of the data fields that shape records.

  Fields that came later count only if they are set, so that data prepared
  before is still known.
  """
  values = dataclasses.asdict(data)
  values |= values.pop('synthetic') or {}
  shaping = {field: values[field] for field in fields}
  for name in ('fields', 'user_fields'):
    if not shaping.get(name):
      shaping.pop(name, None)
  if 'columns' in shaping:
    columns = shaping['columns']
    if not columns['sets']:
      del columns['set_separator']
    for name in _LATER_COLUMNS:
      if not columns[name]:
        del columns[name]
  text = json.dumps(shaping, sort_keys=True, default=list)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def store_path(data: log_options.LogOptions) -> pathlib.Path:
  """Returns the folder of the history store that `data` asks for."""
  _, fields = builder_class(data.name)
  if '://' in data.data_dir:
    raise errors.UsageError(
      f'data.data_dir={data.data_dir}: prepared data is mapped into memory, so'
      ' it must be on a disk; give a folder there (--config.data.data_dir=DIR).'
    )
  digest = shaping_hash(data, (*fields, 'min_item_count'))
  return pathlib.Path(data.data_dir).expanduser() / f'{data.name}-{digest}'


def open_or_prepare(
  data: log_options.LogOptions, check_input: bool = True
) -> history_store.HistoryStore:
  """Opens the store that `data` asks for, preparing it if it is not there.

  Args:
    data: the log, and where its prepared data lies.
    check_input: whether the store must be of the log that `data.input` names.

  Raises:
    UsageError: bad input, a damaged store, one of another log, or one that an
      older version has read wrongly.
  """
  path = store_path(data)
  if not path.exists():
    with _alone(data):
      if not path.exists():  # Not even now, after another process.
        return _prepare(data)
  store = history_store.open_store(path)
  if check_input:
    _check_offers(data)
    log_origin.check(data, store)
    log_reading.check(data, store)
  return store


def _check_offers(data: log_options.LogOptions) -> None:
  cls, _ = builder_class(data.name)
  for option, asked, offered in (
    ('fields', data.fields, cls.FIELDS),
    ('user_fields', data.user_fields, cls.USER_FIELDS),
  ):
    for place, field in enumerate(asked):
      if field not in offered or field in asked[:place]:
        offer = ', '.join(offered) or f'none; csv_log has data.columns.{option}'
        raise errors.UsageError(
          f'data.{option}={asked}: {field!r}: expected some of those that'
          f' {data.name} offers, each once ({offer}).'
        )
  if data.input and not cls.READS_INPUT:
    raise errors.UsageError(
      f'data.input={data.input}: data.name={data.name} reads no log; for one'
      ' of your own use --config=configs/csv_log.py.'
    )


def prepare(data: log_options.LogOptions) -> history_store.HistoryStore:
  """Makes the TFDS dataset and the history store, anew if they are there.

  Existing data stays as it was until the new is complete. Waits while another
  process prepares the same log there.

  Raises:
    UsageError: bad input, or a folder that cannot be written.
  """
  with _alone(data):
    return _prepare(data)


@contextlib.contextmanager
def _alone(data: log_options.LogOptions) -> Iterator[None]:
  """Keeps other processes from preparing the same log meanwhile."""
  _, fields = builder_class(data.name)
  folder = store_path(data).parent
  name = f'preparing-{data.name}-{shaping_hash(data, fields)}.lock'
  lock, has_told = None, False
  while lock is None:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      lock = locks.Lock(folder / name)
    except locks.HeldError as error:
      if not has_told:
        print(
          f'waiting: {error}, prepares {data.name} in {folder}',
          file=sys.stderr,
          flush=True,
        )
      has_told = True
      time.sleep(_WAIT_SECONDS)
    except locks.UnsupportedError:
      break  # What is written has names of its own until it is whole.
    except OSError as error:
      raise _unwritable(data, error) from None
  try:
    yield
  finally:
    if lock is not None:
      lock.release()


def _unwritable(
  data: log_options.LogOptions, error: OSError
) -> errors.UsageError:
  return errors.UsageError(
    f'data.data_dir={data.data_dir}: cannot be written ({error}); choose'
    ' another folder with --config.data.data_dir=DIR.'
  )


def _prepare(data: log_options.LogOptions) -> history_store.HistoryStore:
  cls, fields = builder_class(data.name)
  _check_offers(data)
  path = store_path(data)
  origin = log_origin.look_at(data.input)
  records = path.parent / 'tfds'
  work = path.with_name(f'{path.name}.{os.getpid()}.preparing')
  replaced = log_origin.replaced(path, origin)
  print(
    f'preparing {data.name} in {path}{replaced}', file=sys.stderr, flush=True
  )
  try:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    builder = _build_records(cls, data, work)
    store = _write_store(builder, data, path, origin)
    final = records / f'{data.name}-{shaping_hash(data, fields)}'
    final.parent.mkdir(exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    (work / 'records').rename(final)
    return store
  except OSError as error:
    raise _unwritable(data, error) from None
  finally:
    shutil.rmtree(work, ignore_errors=True)


def _build_records(
  cls: type[base.LogBuilder], data: log_options.LogOptions, work: pathlib.Path
) -> Any:
  """Runs the TFDS builder, quietly, in a folder of its own."""
  tfds.disable_progress_bar()  # They write to files, too.
  builder = cls(options=data, data_dir=str(work / 'records'))
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare()
  return builder


def _write_store(
  builder: Any,
  data: log_options.LogOptions,
  path: pathlib.Path,
  origin: log_origin.Origin | None,
) -> history_store.HistoryStore:
  """Copies the records of all users into a history store."""
  schema = builder.schema
  writer = store_writer.StoreWriter(
    path,
    ('item', 'category', *schema.fields),
    schema.context_fields,
    schema.has_labels,
    schema.numbers,
    schema.sets,
    schema.user_fields,
  )
  try:
    return _fill_store(writer, builder, data, origin)
  except BaseException:
    writer.discard()
    raise


def _fill_store(
  writer: store_writer.StoreWriter,
  builder: Any,
  data: log_options.LogOptions,
  origin: log_origin.Origin | None,
) -> history_store.HistoryStore:
  source = builder.as_data_source(split='users')
  users = tqdm.tqdm(total=len(source), unit='user', disable=None)
  for start in range(0, len(source), _READ_USERS):
    stop = min(start + _READ_USERS, len(source))
    writer.add(source.__getitems__(range(start, stop)))
    users.update(stop - start)
  users.close()
  records = pathlib.Path(builder.data_dir)
  raw_ids = {
    file.stem: pl.read_parquet(file, glob=False)['raw']
    for file in sorted((records / 'raw_ids').glob('*.parquet'))
  }
  log = raw_log.RowReport(**json.loads((records / 'log.json').read_text()))
  provenance = {
    'dataset': data.name,
    'builder_version': str(builder.version),
    'input': data.input,
    'reading': log_reading.VERSION,
    'origin': origin and dataclasses.asdict(origin),
    'log': log.to_json(),
  }
  extra = records / 'truth'
  return writer.commit(
    raw_ids,
    provenance,
    data.min_item_count,
    extra if extra.is_dir() else None,
  )
