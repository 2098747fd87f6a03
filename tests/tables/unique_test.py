"""Finding a batch's rows, against np.unique."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from dare_jax import tables
from dare_jax.tables import layout


@hypothesis.given(st.integers(1, 10**7))
def test_capacity_has_room_and_wastes_little(count):
  room = tables.row_capacity(count)
  assert room >= count
  assert room == tables.row_capacity(room)
  assert room == 256 or room <= 1.25 * count + 1


def _check(ids, found, rows, size):
  """Rows of one device are those of its ids, and its ids point at them."""
  stored = layout.padded(size)
  flat = np.concatenate([leaf.ravel() for leaf in ids])
  expected = np.sort(layout.position(np.unique(np.append(flat, 0)), stored))
  np.testing.assert_array_equal(rows[: len(expected)], expected)
  assert (rows[len(expected) :] >= stored).all()
  assert (np.diff(rows) > 0).all()
  for old, new in zip(ids, found, strict=True):
    np.testing.assert_array_equal(rows[new], layout.position(old, stored))


@hypothesis.given(
  st.integers(0, 2**31),
  st.integers(2, 2000),
  st.integers(1, 900),
  st.sampled_from([1, 2, 3]),
)
def test_rows_are_those_of_unique(seed, size, count, devices):
  rng = np.random.default_rng(seed)
  finder = tables.RowFinder({'item': size}, devices)
  for _ in range(2):  # The second batch meets what the first left behind.
    shapes = (2 * devices, count), (2 * devices, 1, 3)
    ids = tuple(rng.integers(0, size, shape) for shape in shapes)
    made = finder({'item': ids, 'shop': ids[0]})
    np.testing.assert_array_equal(made.ids['shop'], ids[0])
    assert set(made.rows) == {'item'}
    rows = made.rows['item'].reshape(devices, -1)
    assert finder.capacities(made.rows) == [rows.shape[1]]
    wide = finder.widen(made.rows, [rows.shape[1] + 7])
    for number, wider in enumerate(wide['item'].reshape(devices, -1)):
      part = lambda leaf, at=number: np.split(leaf, devices)[at]
      own, found = map(part, ids), map(part, made.ids['item'])
      own, found = list(own), list(found)
      _check(own, found, rows[number], size)
      _check(own, found, wider, size)


@pytest.mark.parametrize('size', [3, 60, 5_000])
def test_on_the_device_as_on_the_host(size):
  rng = np.random.default_rng(size)
  ids = {'long': rng.integers(0, size, (4, 30)), 'short': rng.integers(0, 3, 4)}
  specs = {'item': tables.TableSpec('item', size, 2)}
  found = jax.jit(tables.TableSet(specs).find_rows)({'item': ids, 'shop': 3})
  assert found.ids['shop'] == 3
  found = jax.tree.map(np.asarray, found)
  # In the order of the tree.
  own = list(found.ids['item'].values())
  _check(list(ids.values()), own, found.rows['item'], size)


@pytest.mark.parametrize(
  ('ids', 'error', 'message'),
  [
    ([5, 1], IndexError, 'from 0 to 5; expected 0 to 4'),
    ([0, -1], IndexError, 'from -1 to 0'),
    ([1, 2, 3], ValueError, 'a batch of 3 for 2 devices'),
  ],
)
def test_ids_that_cannot_be_are_told(ids, error, message):
  with pytest.raises(error, match=message):
    tables.RowFinder({'item': 5}, 2)({'item': np.array(ids)})
