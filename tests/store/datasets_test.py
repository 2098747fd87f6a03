"""From a builder to a store: kept, replaced and never half there."""

import dataclasses
import tempfile

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.logs import event_log
from dare_jax.logs import options
from dare_jax.logs.builders import base
from dare_jax.store import datasets
from dare_jax.store import store_writer
from tests.data import stores


class TinyLog(base.LogBuilder):
  """A log of a few rows, made anew at each call."""

  rows = stores.random_rows(seed=0, users=5, low=3, high=9)
  error: BaseException | None = None

  @property
  def schema(self):
    return event_log.LogSchema()

  def read_log(self):
    if self.error is not None:
      raise self.error
    return stores.encode(self.rows)


@pytest.fixture
def data(tmp_path, monkeypatch):
  """Options of a log whose builder is `TinyLog`."""
  monkeypatch.setattr(
    datasets, 'builder_class', lambda name: (TinyLog, ('sort_by_time',))
  )
  return options.LogOptions('tiny_log', str(tmp_path / 'd'))


def _entries(data):
  return sorted(
    str(file.relative_to(data.data_dir))
    for file in datasets.store_path(data).parent.rglob('*')
    if file.is_file()
  )


def test_records_become_the_store_of_the_log(data):
  store, log = (
    datasets.prepare(data),
    stores.encode(TinyLog.rows),
  )
  for name, column in log.columns.items():
    np.testing.assert_array_equal(store.behaviors.columns[name], column)
  np.testing.assert_array_equal(store.behaviors.offsets, log.offsets)
  for field, raw in log.raw_ids.items():
    assert store.raw_ids(field).equals(raw, check_names=False)
  assert datasets.open_or_prepare(data).fingerprint == store.fingerprint


def test_preparing_leaves_no_temporary_folder(data, tmp_path, monkeypatch):
  temporary = tmp_path / 'temporary'
  temporary.mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
  datasets.prepare(data)
  assert not [*temporary.iterdir()]


def test_preparing_again_gives_the_same_store(data):
  first = datasets.prepare(data).fingerprint
  assert datasets.prepare(data).fingerprint == first


@pytest.mark.parametrize(
  'error', [errors.UsageError('bad row'), KeyboardInterrupt()]
)
def test_a_failed_prepare_keeps_the_store_that_was_there(
  data, monkeypatch, error
):
  before = datasets.prepare(data).fingerprint
  entries = _entries(data)
  monkeypatch.setattr(TinyLog, 'error', error)
  with pytest.raises(type(error)):
    datasets.prepare(data)
  assert datasets.open_or_prepare(data).fingerprint == before
  assert _entries(data) == entries


def test_a_failed_write_leaves_nothing_behind(data, monkeypatch):
  def fail(*unused, **also_unused):
    raise KeyboardInterrupt

  monkeypatch.setattr(store_writer.StoreWriter, 'commit', fail)
  with pytest.raises(KeyboardInterrupt):
    datasets.prepare(data)
  assert not datasets.store_path(data).exists()
  assert not [name for name in _entries(data) if 'incomplete' in name]


def test_a_damaged_store_is_refused_not_made_again(data):
  store = datasets.prepare(data)
  (store.path / 'manifest.json').unlink()
  with pytest.raises(errors.UsageError, match='no manifest.json'):
    datasets.open_or_prepare(data)


def test_a_data_dir_that_cannot_be_written_is_refused(data, tmp_path):
  (tmp_path / 'file').write_text('')
  folder = str(tmp_path / 'file' / 'below')
  data = dataclasses.replace(data, data_dir=folder)
  with pytest.raises(errors.UsageError, match='cannot be written') as caught:
    datasets.prepare(data)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'changes, is_same',
  [
    ({'input': '/elsewhere.csv'}, True),
    ({'max_malformed_share': 0.5}, True),
    ({'min_item_count': 2}, False),
    ({'sort_by_time': False}, False),
  ],
)
def test_a_store_is_named_by_the_fields_that_shape_it(data, changes, is_same):
  before = datasets.store_path(data)
  data = dataclasses.replace(data, **changes)
  assert (datasets.store_path(data) == before) == is_same


def test_an_unknown_dataset_is_refused():
  with pytest.raises(errors.UsageError, match='complete_journey, taobao'):
    datasets.builder_class('taobo')
