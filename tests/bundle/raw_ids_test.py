"""Raw values find the ids that the run's own look-up finds."""

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax.bundle import program_shapes
from dare_jax.bundle import raw_ids
from dare_jax.logs import given_values
from dare_jax.logs import id_map

_LOGS = {
  'integers': [7, -3, 2**62, 0, 41],
  'texts': ['a', '', 'ß', 'abcdefgh', 'abcdefghi', 'a\0', '5', ' 5'],
  'floats': ['5.0', '0.25', '1e-7', '12'],
  'one': ['x' * 1000],
  'none': [],
}
_ASKED = [
  ['a', 'b', '', 'ß', 'abcdefghi', 'abcdefgh', 'a\0', '5', '7', ' 5'],
  [7, 5, 5.0, np.int64(41), np.float32(0), 2**70, None, float('nan')],
  ['7', '5.0', 12, 12.0, None],
  np.array([7, 0, 9], np.int16),
  np.array(['a', 'x']),
  ['x' * 1000, 'x' * 999],
  [2**62, 2**62 + 1, -(2**63), 2**63],
  [],
]


@pytest.mark.parametrize('log', _LOGS)
def test_finds_what_the_run_finds(log, tmp_path):
  raw = _LOGS[log]
  known = pl.Series(raw, dtype=pl.Int64 if log == 'integers' else pl.String)
  ids = np.arange(2, 2 + len(raw), dtype=np.int32)
  told = raw_ids.save(
    tmp_path, 'item', known.to_list(), ids, known.dtype == pl.String
  )
  found = raw_ids.RawIds(tmp_path, 'item', told)
  for asked in [*_ASKED, *_ASKED]:
    try:
      values = given_values.as_known('item', asked, known)
    except errors.UsageError as error:
      with pytest.raises(errors.UsageError) as caught:
        found(asked, 1)
      assert str(caught.value) == str(error)
      continue
    expected = id_map.lookup(known, values).fill_null(1).to_numpy()
    np.testing.assert_array_equal(found(asked, 1), expected)


def test_one_value_is_found_as_many_at_once(tmp_path):
  rng = np.random.default_rng(0)
  texts = (_random_text(rng) for _ in range(300))
  known = [*dict.fromkeys([*texts, '12', '7.0'])]
  ids = np.arange(2, 2 + len(known), dtype=np.int32)
  told = raw_ids.save(tmp_path, 'item', known, ids, is_text=True)
  found = raw_ids.RawIds(tmp_path, 'item', told)
  others = [_random_text(rng) for _ in range(50)]
  asked = [*known, *others, 12, 7, 5, 2**70]
  at_once = found._ids(asked)
  np.testing.assert_array_equal(at_once[: len(ids)], ids)
  assert set(others) - set(known) and at_once[-2:].tolist() == [-1, -1]
  assert [found._id_of(value) for value in asked] == at_once.tolist()


def _random_text(rng):
  """Returns text of up to 30 bytes, with ends at all places of a word."""
  letters = rng.choice([*'ab9ßé', '\0', '\udc80'], rng.integers(0, 18))
  return ''.join(letters.tolist())


def test_equal_hashes_are_told_apart(tmp_path, monkeypatch):
  def bad(data, offsets):
    return np.zeros(len(offsets) - 1, np.uint64)

  monkeypatch.setattr(raw_ids, '_hashes', bad)
  monkeypatch.setattr(raw_ids, '_hash', lambda text: 0)
  known = [f'i{i}' for i in range(9)]
  ids = np.arange(2, 11, dtype=np.int32)
  told = raw_ids.save(tmp_path, 'item', known, ids, is_text=True)
  for few_texts in (64, 0):
    monkeypatch.setattr(raw_ids, '_FEW_TEXTS', few_texts)
    found = raw_ids.RawIds(tmp_path, 'item', told)
    assert found(['i8', 'x', 'i0', 'i'], 1).tolist() == [10, 1, 2, 1]


def test_what_is_kept_is_bounded(tmp_path, monkeypatch):
  monkeypatch.setattr(raw_ids, '_MOST_KEPT', 10)
  known = [f'i{i}' for i in range(50)]
  ids = np.arange(2, 52, dtype=np.int32)
  told = raw_ids.save(tmp_path, 'item', known, ids, is_text=True)
  found = raw_ids.RawIds(tmp_path, 'item', told)
  for first in range(0, 50, 5):
    asked = [*known[first : first + 5], 'never', True]
    with pytest.raises(errors.UsageError, match='True'):
      found(asked, 1)
    assert found(asked[:-1], 1).tolist() == [*ids[first : first + 5], 1]
    assert len(found._kept) < 20


def test_users_are_put_in_batches():
  shapes = [program_shapes.Shape(*sizes) for sizes in ((1, 4, 16), (8, 4, 16))]
  made = program_shapes.ProgramShapes(
    [*shapes, program_shapes.Shape(1, 32, 16)], 32
  )
  assert made.capacities == [16, 32]
  assert [made.capacity(n) for n in (0, 16, 17, 99)] == [16, 16, 32, 32]
  assert [made.candidates(n, 16) for n in (1, 4, 5, 99)] == [4, 4, 32, 32]
  assert made.candidates(5, 32) == 8
  turns = lambda users, *of: list(made.batches(users, *of))
  assert turns(1, 4, 16) == [(1, 1)]
  assert turns(13, 4, 16) == [(8, 8), (5, 8)]
  assert turns(3, 4, 16) == [(1, 1)] * 3
  assert turns(5, 8, 32) == [(5, 8)]
  assert list(made.encodings(9, 16)) == [(8, 8), (1, 1)]
  assert list(made.encodings(9, 32)) == [(9, 16)]
