import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import polars as pl

from dare_jax.logs import id_map


def _slow_encode(values):
  ids = {}
  return [ids.setdefault(v, id_map.FIRST + len(ids)) for v in values], list(ids)


def _cut(values, cuts):
  borders = [0, *sorted(cut % (len(values) + 1) for cut in cuts), len(values)]
  return [values[a:b] for a, b in itertools.pairwise(borders)]


@hypothesis.given(
  st.one_of(
    st.tuples(st.just(pl.Int64), st.lists(st.integers(-3, 9), max_size=40)),
    st.tuples(
      st.just(pl.String), st.lists(st.text('aäb ', max_size=2), max_size=40)
    ),
  ),
  st.lists(st.integers(0, 100), max_size=5),
)
def test_ids_follow_first_appearance_however_the_log_is_cut(typed, cuts):
  kind, values = typed
  expected, raw = _slow_encode(values)
  mapping = id_map.IdMap()
  parts = [
    mapping.encode(pl.Series(block, dtype=kind)) for block in _cut(values, cuts)
  ]
  encoded = np.concatenate(parts)
  assert encoded.tolist() == expected
  assert all(part.dtype == np.int32 for part in parts)
  assert mapping.raw().to_list() == raw
  assert mapping.vocab_size == len(raw) + 2


def test_extreme_integers():
  values = [2**63 - 1, 0, -(2**63), 2**63 - 1]
  ids = id_map.IdMap().encode(pl.Series(values, dtype=pl.Int64))
  assert ids.tolist() == [2, 3, 4, 2]


def test_an_unused_map_has_padding_and_unknown_only():
  assert id_map.IdMap().vocab_size == 2
