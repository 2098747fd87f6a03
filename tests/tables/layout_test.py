"""The order of rows in storage."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.aot import traffic
from dare_jax.parallel import mesh
from dare_jax.tables import layout


@hypothesis.given(st.integers(1, 200_000))
def test_every_row_has_a_place_of_its_own(num_rows):
  stored = layout.padded(num_rows)
  assert num_rows <= stored < num_rows + layout.PARTS
  rows = np.arange(stored)
  places = layout.position(rows, stored)
  assert places[0] == 0
  np.testing.assert_array_equal(np.sort(places), rows)
  np.testing.assert_array_equal(layout.row_at(places, stored), rows)


@pytest.mark.parametrize('devices', [2, 8, 24, 256])
def test_popular_rows_are_spread(devices):
  stored = layout.padded(1_000_000)
  places = layout.position(np.arange(100 * devices), stored)
  load = np.bincount(places // (stored // devices), minlength=devices)
  assert load.max() <= 110 and load.min() >= 90


def test_positions_of_the_largest_tables_fit_int32():
  stored = layout.padded(2_000_000_000)
  rows = np.array([0, 1, 1_999_999_999], np.int64)
  narrow = layout.position(rows.astype(np.int32), np.int32(stored))
  np.testing.assert_array_equal(narrow, layout.position(rows, stored))


def test_a_number_of_devices_that_does_not_divide_is_refused():
  with pytest.raises(errors.UsageError, match='7 devices.*use 6 devices'):
    mesh.make([None] * 7)


def test_bytes_of_collectives():
  text = """
    %a = (f32[4,2]{1,0}, s32[3]{0}) all-reduce(%x, %y), to_apply=%sum
    %b = (f32[8]{0}, f32[8]{0}) all-to-all-start(%z), dimensions={0}
    %c = bf16[10]{0} all-gather(%w), dimensions={0}
    %d = (pred[6]{0}, s8[5]{0}) collective-permute(%m)
    ROOT %e = f32[] add(%f, %g)
  """
  assert traffic.collective_bytes(text) == {
    'all-reduce': 44,
    'all-to-all': 32,
    'all-gather': 20,
    'collective-permute': 11,
  }
