"""Stores of versions that read some logs wrongly."""

import datetime
import json

import polars as pl
import pytest

from dare_jax import errors
from dare_jax import storage
from dare_jax.configs import csv_log
from dare_jax.experiments import run_data
from dare_jax.logs import options as log_options
from dare_jax.store import datasets

_NOON = datetime.datetime(2024, 5, 1, 12)
_HALF = datetime.timedelta(milliseconds=500)


@pytest.fixture
def prepared(tmp_path):
  """Prepares a log with these columns, as if by a version without `lacks`."""

  def prepare(lacks=('reading',), fields=(), suffix='parquet', **columns):
    frame = pl.DataFrame(
      {
        'user_id': ['u', 'u', 'v'],
        'item_id': [1, 2, 3],
        'category_id': [1, 2, 3],
        'timestamp': [_NOON] * 3,
      }
      | columns
    )
    path = tmp_path / f'log.{suffix}'
    frame.write_parquet(path) if suffix == 'parquet' else frame.write_csv(path)
    config = csv_log.get_config()
    config.data.input, config.data.data_dir = str(path), str(tmp_path / 'data')
    config.data.columns.fields = fields
    store = datasets.prepare(log_options.of_section(config.data))
    manifest = json.loads((store.path / 'manifest.json').read_text())
    for name in lacks:
      for part in (manifest['provenance'], manifest['provenance']['log']):
        part.pop(name, None)
    (store.path / 'manifest.json').write_text(json.dumps(manifest))
    return config

  return prepare


_ZONED = pl.Series([_NOON] * 3).dt.replace_time_zone
_BEFORE_FRACTIONS = ('reading', 'time_unit', 'time_scale')
_WRONG = {
  'zone': (
    {'timestamp': _ZONED('Asia/Kolkata')},
    "'timestamp' as a clock of Asia",
  ),
  'fractions': (
    {'timestamp': [_NOON + _HALF] * 3, 'lacks': _BEFORE_FRACTIONS},
    "cut the times of 'timestamp' to whole",
  ),
  'time of day': (
    {'at': [datetime.time(1, 2, 3, 4)] * 3, 'fields': ('at',)},
    "cut the times of 'at' to whole seconds",
  ),
}
_RIGHT = {
  'whole': {'lacks': _BEFORE_FRACTIONS},
  'utc': {'timestamp': _ZONED('UTC')},
  'kept fractions': {'timestamp': [_NOON + _HALF] * 3},
  'csv': {'suffix': 'csv', 'lacks': _BEFORE_FRACTIONS},
  'today': {'timestamp': _ZONED('America/New_York'), 'lacks': ()},
  'numbers': {'timestamp': [0.5, 1.5, 2.5], 'lacks': _BEFORE_FRACTIONS},
}


@pytest.mark.parametrize('case', _WRONG)
def test_a_store_that_was_misread_is_refused(prepared, tmp_path, case):
  columns, named = _WRONG[case]
  config = prepared(**columns)
  for given in (config.data.input, None):
    config.data.input = given
    with pytest.raises(errors.UsageError, match=named) as refusal:
      datasets.open_or_prepare(log_options.of_section(config.data))
    assert 'python -m dare_jax.prepare' in str(refusal.value)
  # A run that was trained on it goes on with it.
  assert run_data.open_or_prepare(config, storage.locate(tmp_path / 'run'))
  config.data.input = str(tmp_path / 'log.parquet')
  datasets.prepare(log_options.of_section(config.data))
  assert datasets.open_or_prepare(log_options.of_section(config.data))


@pytest.mark.parametrize('case', _RIGHT)
def test_a_store_that_was_read_as_today_is_opened(prepared, case):
  assert datasets.open_or_prepare(
    log_options.of_section(prepared(**_RIGHT[case]).data)
  )


def test_a_log_that_is_gone_tells_nothing(prepared, tmp_path):
  config = prepared(**_WRONG['zone'][0])
  (tmp_path / 'log.parquet').unlink()
  assert datasets.open_or_prepare(log_options.of_section(config.data))
