"""Files of vectors: both forms, what is refused, and what is prepared."""

import pathlib

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax.logs import id_map
from dare_jax.store import item_vectors
from dare_jax.store import vector_files
from dare_jax.store import vector_store
from tests.data import stores

_ITEMS = np.array([7, 3, 12, 5, 9])


def _vectors(dtype=np.float32) -> np.ndarray:
  values = np.random.default_rng(0).normal(size=(len(_ITEMS), 3))
  values[3] = 0
  return values.astype(dtype)


def _write_npy(folder: pathlib.Path, vectors, items) -> str:
  np.save(folder / 'v.npy', vectors)
  np.save(folder / 'v.items.npy', items)
  return str(folder / 'v.npy')


def _write_parquet(folder: pathlib.Path, vectors, items) -> str:
  frame = pl.DataFrame({'item': items, 'vector': vectors})
  frame.write_parquet(folder / 'v.parquet')
  return str(folder / 'v.parquet')


def _prepared(given: str, folder: pathlib.Path) -> item_vectors.ItemVectors:
  return item_vectors.open_or_prepare(given, str(folder / 'data'))


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_both_forms_become_unit_vectors(tmp_path, monkeypatch, dtype):
  monkeypatch.setattr(vector_files, '_BLOCK_VALUES', 2 * 3)  # two rows a block
  vectors = _vectors(dtype)
  expected = vectors.astype(np.float64)
  length = np.linalg.norm(expected, axis=1, keepdims=True)
  expected = expected / np.where(length > 0, length, 1)
  for write, values in ((_write_npy, vectors), (_write_parquet, vectors)):
    values = values if write is _write_npy else values.tolist()
    found = _prepared(write(tmp_path, values, _ITEMS), tmp_path)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    assert found.vectors.dtype == np.float32
    assert found.items.to_list() == _ITEMS.tolist()
    assert (found.width, found.num_zero) == (3, 1)


def test_prepared_vectors_outlive_their_file(tmp_path):
  given = _write_npy(tmp_path, _vectors(), _ITEMS)
  first = _prepared(given, tmp_path)
  file = first.path / 'vectors.npy'
  stamp = file.stat().st_mtime_ns
  _prepared(given, tmp_path)
  assert file.stat().st_mtime_ns == stamp
  pathlib.Path(given).unlink()
  again = item_vectors.open_prepared(first.path)
  np.testing.assert_array_equal(again.vectors, first.vectors)
  with pytest.raises(errors.UsageError, match='no file'):
    _prepared(given, tmp_path)
  (first.path / 'items.parquet').unlink()
  with pytest.raises(errors.UsageError, match='remove the folder'):
    item_vectors.open_prepared(first.path)


def test_another_file_is_another_fingerprint(tmp_path):
  given = _write_npy(tmp_path, _vectors(), _ITEMS)
  first = vector_files.fingerprint(given)
  _write_npy(tmp_path, _vectors(), _ITEMS[::-1])
  assert vector_files.fingerprint(given) != first
  assert vector_files.fingerprint(str(tmp_path / 'none.npy')) is None


def _with(values, row, value):
  values = values.copy()
  values[row] = value
  return values


@pytest.mark.parametrize(
  ('vectors', 'items', 'named'),
  [
    (_with(_vectors(), 2, np.nan), _ITEMS, r'item 12 \(row 3\)'),
    (_with(_vectors(), 2, np.inf), _ITEMS, 'not finite'),
    (_with(_vectors(np.float64), 1, 1e39), _ITEMS, 'beyond float32'),
    (_vectors()[:4], _ITEMS, 'v.items.npy has the shape'),
    (_vectors()[0], _ITEMS[:1], r'expected numbers \[items, width\]'),
    (_vectors(), _ITEMS.astype(float), 'whole numbers or texts'),
    (
      _vectors(),
      _with(_ITEMS, 0, 3),
      'item 3 has several vectors; expected one',
    ),
    (_vectors()[:0], _ITEMS[:0], 'holds no vector'),
    (np.array(['a', 'b']), _ITEMS[:2], 'expected numbers'),
  ],
)
def test_bad_arrays_are_refused(tmp_path, vectors, items, named):
  given = _write_npy(tmp_path, vectors, items)
  with pytest.raises(errors.UsageError, match=named):
    _prepared(given, tmp_path)
  assert not [*(tmp_path / 'data').glob('*')]  # Nothing half made is left.


@pytest.mark.parametrize(
  ('frame', 'named'),
  [
    ({'id': [1], 'vector': [[1.0]]}, "no column 'item'; it has id, vector"),
    ({'item': [1], 'vec': [[1.0]]}, "no column 'vector'"),
    ({'item': [1.5], 'vector': [[1.0]]}, 'expected whole numbers or text'),
    ({'item': [1], 'vector': ['a']}, 'expected a list of numbers'),
    ({'item': [1, 2], 'vector': [[1.0], [1.0, 2.0]]}, 'item 2 has 2 numbers'),
    ({'item': [1, 2], 'vector': [[1.0], None]}, 'item 2 has no vector'),
    ({'item': [1, 2], 'vector': [None, [1.0]]}, 'item 1 has no vector'),
    ({'item': [1, None], 'vector': [[1.0], [2.0]]}, 'row 2 has no item'),
    ({'item': [1, 2], 'vector': [[1.0], [None]]}, 'missing'),
  ],
)
def test_bad_tables_are_refused(tmp_path, frame, named):
  pl.DataFrame(frame).write_parquet(tmp_path / 'v.parquet')
  with pytest.raises(errors.UsageError, match=named):
    _prepared(str(tmp_path / 'v.parquet'), tmp_path)


@pytest.mark.parametrize('name', ['v.npy', 'v.parquet'])
def test_files_of_another_kind_are_refused(tmp_path, name):
  (tmp_path / name).write_bytes(b'item,vector\n1,2\n')
  (tmp_path / 'v.items.npy').write_bytes(b'1')
  with pytest.raises(errors.UsageError, match=r'expected NAME\.npy'):
    _prepared(str(tmp_path / name), tmp_path)


def test_arrays_that_are_none_are_refused(tmp_path):
  """An empty file, and an archive of several arrays by the name of one."""
  given = _write_npy(tmp_path, _vectors(), _ITEMS)
  (tmp_path / 'v.npy').write_bytes(b'')
  with pytest.raises(errors.UsageError, match='v.npy is no array'):
    _prepared(given, tmp_path)
  with (tmp_path / 'v.npy').open('wb') as file:
    np.savez(file, vectors=_vectors())
  with pytest.raises(errors.UsageError, match='v.npy is no array'):
    _prepared(given, tmp_path)


def test_rows_of_a_store_are_those_of_its_items(tmp_path):
  store = stores.build(stores.random_rows(0, 3, 5, 20), tmp_path / 'store')
  raw = store.raw_ids('item')
  items = [*raw.to_list()[1:], 10**6]
  vectors = np.eye(len(items))
  given = _write_npy(tmp_path, vectors, np.array(items))
  found = vector_store.attach(store, _prepared(given, tmp_path))
  assert found.fields == (*store.fields, 'item_vector')
  assert found.fingerprint == store.fingerprint
  assert found.raw_ids('item_vector').to_list() == items
  assert vector_store.width_of(found) == len(items)
  assert vector_store.width_of(store) is None
  item = store.behaviors.columns['item_id']
  expected = np.where(item > id_map.FIRST, item - 1, id_map.UNKNOWN)
  column = found.behaviors.columns['item_vector_id']
  np.testing.assert_array_equal(np.asarray(column), expected)
  np.testing.assert_array_equal(column[2:9], expected[2:9])
  assert len(column) == len(item)
  text = vector_store.coverage(found)
  assert f'{len(raw) - 1} of {len(raw)} items of the log' in text
  assert '1 item that it lacks' in text


@pytest.mark.parametrize(
  ('items', 'named'),
  [
    (np.array(['a', 'b']), "item 'a': items of the log are whole numbers"),
    (np.array([10**6, 10**7]), 'has no item of the log: it has items such as'),
    (np.array(['1', '01']), 'item 1 has several vectors'),
  ],
)
def test_items_of_another_kind_are_refused(tmp_path, items, named):
  store = stores.build(stores.random_rows(0, 3, 5, 20), tmp_path / 'store')
  given = _write_npy(tmp_path, np.ones((2, 3)), items)
  with pytest.raises(errors.UsageError, match=named):
    vector_store.attach(store, _prepared(given, tmp_path))
