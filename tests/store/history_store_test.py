"""The store: what is written comes back, and what is damaged is refused."""

import collections
import json
import pathlib

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.logs import event_log
from dare_jax.store import history_store
from tests.data import stores

_LABELLED = event_log.LogSchema(
  fields=('shop',), context_fields=('page',), has_labels=True
)
_ROWS = stores.logs()


@hypothesis.given(_ROWS)
def test_round_trip(rows):
  log, store = stores.encode(rows), stores.build(rows)
  np.testing.assert_array_equal(store.behaviors.offsets, log.offsets)
  for name, column in log.columns.items():
    np.testing.assert_array_equal(store.behaviors.columns[name], column)
  assert store.num_users == len({row[0] for row in rows})
  assert len(store.behaviors) == len(rows)
  assert store.vocab_sizes['item'] == len({row[1] for row in rows}) + 2
  for user in range(store.num_users):
    own = store.behaviors.slice(user)
    np.testing.assert_array_equal(
      store.behaviors.columns['sorted_item_id'][own],
      np.sort(log.columns['item_id'][own]),
    )


@hypothesis.given(_ROWS)
def test_item_values_are_the_last_seen(rows):
  store = stores.build(rows)
  last = {0: 0, 1: 1}
  for user in range(store.num_users):
    for event in stores.events_of(store.behaviors, user):
      last[event['item_id']] = event['category_id']
  values = store.item_values['category']
  assert dict(enumerate(values.tolist())) == last


@hypothesis.given(_ROWS, st.integers(1, 6))
def test_rare_items_become_the_unknown_item(rows, minimum):
  store = stores.build(rows, min_item_count=minimum)
  log = stores.encode(rows)
  raw = log.raw_ids['item'].to_list()
  count = collections.Counter(row[1] for row in rows)
  kept = [item for item in raw if count[item] >= minimum]
  expected = [
    kept.index(raw[i - 2]) + 2 if raw[i - 2] in kept else 1
    for i in log.columns['item_id']
  ]
  assert store.behaviors.columns['item_id'].tolist() == expected
  assert store.vocab_sizes['item'] == len(kept) + 2
  np.testing.assert_array_equal(
    store.behaviors.columns['category_id'], log.columns['category_id']
  )


def test_impressions_and_behaviors_of_a_labelled_log(tmp_path):
  rows = [
    ('a', 1, 2, 3, 'x', 'p', 1),
    ('a', 4, 2, 3, 'x', 'q', 0),
    ('b', 4, 2, 5, 'y', 'p', 0),
    ('a', 4, 5, 9, 'z', 'q', 1),
  ]
  store = stores.build(rows, tmp_path / 's', _LABELLED)
  assert store.fields == ('item', 'category', 'shop')
  assert store.context_fields == ('page',)
  assert store.behaviors.offsets.tolist() == [0, 2, 2]
  assert store.impressions.offsets.tolist() == [0, 3, 4]
  assert store.behaviors.columns['item_id'].tolist() == [2, 3]
  assert store.impressions.columns['label'].tolist() == [1, 0, 1, 0]
  assert store.impressions.columns['page_id'].tolist() == [2, 3, 3, 2]
  assert store.raw_ids('shop').to_list() == ['x', 'y', 'z']
  # Item 4 (dense 3) was last shown to user b, with category 2 (dense 2).
  assert store.item_values['category'].tolist() == [0, 1, 2, 2]


def test_a_log_without_any_positive_label_opens(tmp_path):
  store = stores.build([('a', 1, 2, 3, 'x', 'p', 0)], tmp_path, _LABELLED)
  assert (len(store.behaviors), len(store.impressions)) == (0, 1)


@pytest.mark.parametrize('late, kind', [(2**31 - 1, 'int32'), (2**31, 'int64')])
def test_times_are_narrowed_only_where_they_fit(tmp_path, late, kind):
  store = stores.build([(0, 0, 0, 1), (0, 0, 0, late)], tmp_path / 's')
  assert store.behaviors.columns['timestamp'].dtype == kind
  assert store.behaviors.columns['timestamp'].tolist() == [1, late]


def test_fingerprint_names_the_content(tmp_path):
  rows = stores.random_rows(1, 5, 3, 9)
  first = stores.build(rows, tmp_path / 'a').fingerprint
  assert stores.build(rows, tmp_path / 'b').fingerprint == first
  assert stores.build(rows[1:], tmp_path / 'c').fingerprint != first


# Damage: each breaks one thing of a store folder.


def _manifest(path: pathlib.Path, **changes):
  manifest = json.loads((path / 'manifest.json').read_text()) | changes
  (path / 'manifest.json').write_text(json.dumps(manifest))


def _without(path: pathlib.Path, key: str):
  manifest = json.loads((path / 'manifest.json').read_text())
  del manifest[key]
  (path / 'manifest.json').write_text(json.dumps(manifest))


def _truncate(path: pathlib.Path, size: int):
  file = path / 'behaviors/item_id.npy'
  file.write_bytes(file.read_bytes()[:size])


def _flip(path: pathlib.Path, position: int):
  file = path / 'behaviors/item_id.npy'
  data = bytearray(file.read_bytes())
  data[position] ^= 8
  file.write_bytes(data)


def _rewrite(path: pathlib.Path, name: str, change):
  """Changes a column and makes checksum and fingerprint agree with it."""
  file = path / f'{name}.npy'
  array = change(np.load(file))
  np.save(file, array)
  manifest = json.loads((path / 'manifest.json').read_text())
  manifest['files'][name] = {
    'shape': list(array.shape),
    'dtype': str(array.dtype),
    'crc32': history_store.checksum(array),
  }
  manifest['fingerprint'] = history_store.fingerprint_of(
    manifest['files'], manifest['vocab_sizes']
  )
  (path / 'manifest.json').write_text(json.dumps(manifest))


def _set(index, value):
  def change(array):
    array[index] = value
    return array

  return change


_ITEMS, _OFFSETS = 'behaviors/item_id', 'behaviors/offsets'
_DAMAGE = {
  'truncated': (lambda p: _truncate(p, 140), 'item_id.npy is damaged'),
  'header cut': (lambda p: _truncate(p, 30), 'item_id.npy is damaged'),
  'emptied': (lambda p: _truncate(p, 0), 'item_id.npy is damaged'),
  'flipped bit': (lambda p: _flip(p, -7), 'does not match its checksum'),
  'missing column': (
    lambda p: (p / 'behaviors/timestamp.npy').unlink(),
    'timestamp.npy is missing',
  ),
  'no manifest': (lambda p: (p / 'manifest.json').unlink(), 'no manifest'),
  'cut manifest': (
    lambda p: (p / 'manifest.json').write_text('{"format_version": 1, '),
    'manifest.json is not readable',
  ),
  'manifest is a list': (
    lambda p: (p / 'manifest.json').write_text('[]'),
    'manifest.json is not readable',
  ),
  'binary manifest': (
    lambda p: (p / 'manifest.json').write_bytes(b'\xff\x00'),
    'manifest.json is not readable',
  ),
  'manifest lacks files': (
    lambda p: _without(p, 'files'),
    "manifest.json is incomplete ('files')",
  ),
  'manifest lacks fields': (
    lambda p: _without(p, 'fields'),
    "manifest.json is incomplete ('fields')",
  ),
  'other sizes': (
    lambda p: _manifest(p, vocab_sizes={'item': 9, 'category': 9}),
    'does not match its fingerprint',
  ),
  'other fields': (
    lambda p: _manifest(p, fields=['item', 'category', 'shop']),
    'does not list the columns',
  ),
  'newer': (lambda p: _manifest(p, format_version=2), 'format version 2'),
  'id too large': (
    lambda p: _rewrite(p, _ITEMS, _set(3, 10_000)),
    'item_id holds ids from 2 to 10000, outside 1 to',
  ),
  'padding id': (
    lambda p: _rewrite(p, _ITEMS, _set(3, 0)),
    'item_id holds ids from 0',
  ),
  'negative id': (
    lambda p: _rewrite(p, 'behaviors/category_id', _set(0, -1)),
    'category_id holds ids from -1',
  ),
  'value of an item too large': (
    lambda p: _rewrite(p, 'item_values/category', _set(2, 99)),
    'item_values/category does not fit',
  ),
  'offsets fall': (
    lambda p: _rewrite(p, _OFFSETS, _set(1, 1000)),
    'offsets and columns disagree',
  ),
  'offsets start late': (
    lambda p: _rewrite(p, _OFFSETS, _set(0, 1)),
    'offsets and columns disagree',
  ),
  'offsets end early': (
    lambda p: _rewrite(p, _OFFSETS, lambda a: a[:-1]),
    'offsets and columns disagree',
  ),
  'offsets all zero': (
    lambda p: _rewrite(p, _OFFSETS, lambda a: a * 0),
    'offsets and columns disagree',
  ),
  'no offsets': (
    lambda p: _rewrite(p, _OFFSETS, lambda a: a[:0]),
    'offsets and columns disagree',
  ),
  'shorter column': (
    lambda p: _rewrite(p, _ITEMS, lambda a: a[:-1]),
    'offsets and columns disagree',
  ),
}


def _contents(path: pathlib.Path) -> dict[str, bytes]:
  files = [file for file in sorted(path.rglob('*')) if file.is_file()]
  return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.parametrize('name', _DAMAGE)
def test_damage_is_refused_in_one_line_and_left_as_it_is(tmp_path, name):
  path = tmp_path / 's'
  stores.build(stores.random_rows(0, 4, 5, 9), path)
  damage, message = _DAMAGE[name]
  damage(path)
  before = _contents(path)
  with pytest.raises(errors.UsageError) as caught:
    history_store.open_store(path)
  text = str(caught.value)
  assert message in text and str(path) in text and '\n' not in text
  assert ('prepare it again' in text) != (name == 'newer')
  assert _contents(path) == before


def test_a_flipped_bit_anywhere_is_refused_or_harmless(tmp_path):
  stores.build(stores.random_rows(0, 2, 2, 4), tmp_path)
  file = tmp_path / 'behaviors/item_id.npy'
  intact, items = file.read_bytes(), np.load(file)
  for position in range(len(intact)):
    _flip(tmp_path, position)
    try:
      columns = history_store.open_store(tmp_path).behaviors.columns
      np.testing.assert_array_equal(columns['item_id'], items)
      assert position < 128  # Nothing but blanks of the header.
    except errors.UsageError as error:
      assert '\n' not in str(error)
    file.write_bytes(intact)


@pytest.mark.parametrize(
  'damage', ['missing', 'a bit', 'not Parquet', 'other length']
)
def test_damaged_raw_ids_are_refused(tmp_path, damage):
  store = stores.build(stores.random_rows(0, 4, 5, 9), tmp_path / 's')
  file = tmp_path / 's/raw_ids/item.parquet'
  if damage == 'missing':
    file.unlink()
  elif damage == 'a bit':
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
  elif damage == 'not Parquet':
    file.write_bytes(b'x' * 100)
  else:
    store.raw_ids('item')[:1].to_frame().write_parquet(file)
  if damage in ('not Parquet', 'other length'):  # A store without checksums.
    del store.manifest['files_beside']
  with pytest.raises(errors.UsageError, match='raw_ids/item.parquet') as caught:
    store.raw_ids('item')
  assert '\n' not in str(caught.value)


def test_an_interrupted_write_leaves_no_store(tmp_path, monkeypatch):
  path = tmp_path / 's'
  log = stores.encode(stores.random_rows(0, 4, 5, 9))
  monkeypatch.setattr(np, 'save', _stop_at('item_values'))
  with pytest.raises(KeyboardInterrupt):
    stores.writer(log, path).commit(log.raw_ids, {})
  assert not path.exists()
  with pytest.raises(errors.UsageError, match='no manifest'):
    history_store.open_store(path)
  monkeypatch.undo()
  stores.writer(log, path).commit(log.raw_ids, {})  # The next try succeeds.
  assert [entry.name for entry in tmp_path.iterdir()] == ['s']


def test_an_interrupted_write_keeps_the_store_that_was_there(
  tmp_path, monkeypatch
):
  path = tmp_path / 's'
  stores.build(stores.random_rows(0, 4, 5, 9), path)
  before = _contents(path)
  log = stores.encode(stores.random_rows(1, 4, 5, 9))
  writer = stores.writer(log, path)
  monkeypatch.setattr(np, 'save', _stop_at('item_values'))
  with pytest.raises(KeyboardInterrupt):
    writer.commit(log.raw_ids, {})
  writer.discard()
  assert _contents(path) == before
  assert [entry.name for entry in tmp_path.iterdir()] == ['s']


def _stop_at(part: str):
  save = np.save

  def stop(file, *args, **kwargs):
    if part in str(file):
      raise KeyboardInterrupt
    save(file, *args, **kwargs)

  return stop
