"""Finding a batch's rows, against np.unique."""

from __future__ import annotations

import dataclasses

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax.data import compact
from dare_jax.tables import layout
from tests.models import examples


@hypothesis.given(st.integers(1, 10**7))
def test_bucket_has_room_and_wastes_little(count):
  room = compact.bucket(count)
  assert room >= count
  assert room == compact.bucket(room)
  assert room == 256 or room <= 1.25 * count + 1


@hypothesis.given(
  st.integers(0, 2**31), st.integers(2, 2000), st.integers(1, 900)
)
def test_rows_are_those_of_unique(seed, size, count):
  rng = np.random.default_rng(seed)
  compactor = compact.Compactor({'item': size})
  for _ in range(2):  # The second batch meets what the first left behind.
    batch = _batch(rng.integers(0, size, count), rng.integers(0, size, 3))
    made = compactor(batch)
    ids = np.concatenate(
      [batch.history.ids['item'].ravel(), batch.targets.ids['item'].ravel()]
    )
    stored = layout.padded(size)
    expected = layout.position(np.unique(np.append(ids, 0)), stored)
    rows = made.rows['item']
    np.testing.assert_array_equal(rows[: len(expected)], np.sort(expected))
    assert (rows[len(expected) :] >= stored).all()
    assert (np.diff(rows) > 0).all()
    for part in ('history', 'targets'):
      old, new = (getattr(x, part).ids for x in (batch, made))
      np.testing.assert_array_equal(
        rows[new['item']], layout.position(old['item'], stored)
      )
      np.testing.assert_array_equal(new['category'], old['category'])


def test_an_id_beyond_the_table_is_an_error():
  with pytest.raises(IndexError):
    compact.Compactor({'item': 5})(_batch(np.array([5]), np.array([1])))


def _batch(history, targets):
  example = examples.make_batch()
  ids = lambda x, shape: {
    name: x.astype(np.int32).reshape(shape) for name in ('item', 'category')
  }
  return dataclasses.replace(
    example,
    history=dataclasses.replace(example.history, ids=ids(history, (1, -1))),
    targets=dataclasses.replace(example.targets, ids=ids(targets, (1, 1, -1))),
  )
