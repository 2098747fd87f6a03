"""Members of sets beside a plain reading of the names, and what is known."""

import numpy as np
import polars as pl

from dare_jax.store import set_members

_NAMES = ['a|b', '', 'c', 'a|b|c', 'd']


def _sets(members: set_members.SetMembers) -> list[list[str]]:
  """The raw members of each set, padding and unknown as such."""
  raw = ['<padding>', '<unknown>', *members.raw.to_list()]
  return [
    [raw[i] for i in members.member[start:stop]]
    for start, stop in zip(members.first, members.first[1:], strict=False)
  ]


def _of(names=_NAMES):
  return set_members.of_names(pl.Series(names, dtype=pl.String), '|')


def test_sets_are_made_of_the_parts_of_their_names():
  found = _of()
  assert _sets(found) == [
    ['<padding>'],
    ['<unknown>'],
    *[name.split('|') for name in _NAMES],
  ]
  assert found.raw.to_list() == ['a', 'b', '', 'c', 'd']
  assert (found.num_members, found.widest) == (7, 3)
  assert found.first.dtype == found.member.dtype == np.int32


def test_a_log_without_rows():
  found = _of([])
  assert _sets(found) == [['<padding>'], ['<unknown>']]
  assert (found.num_members, found.widest) == (2, 1)


def test_what_is_not_known_is_left_out_of_sets():
  found = _of()
  read = np.array([True, True, False, False, True, False, False])  # 'c' alone
  known = found.in_sets(read)
  assert known.tolist() == [True, True, False, False, False, True, False]
  made = found.of_known(known)
  assert _sets(made)[2:] == [
    ['<unknown>'],
    ['<unknown>'],
    ['c'],
    ['c'],
    ['<unknown>'],
  ]
  assert made.are_known().tolist() == [
    *(True, True, False, False, True, True, False)
  ]
  everything = found.of_known(np.ones(7, bool))
  np.testing.assert_array_equal(everything.member, found.member)
  assert everything.are_known().all()


def test_members_occur_as_often_as_their_sets():
  counts = _of().counts(np.array([0, 0, 2, 5, 1, 10, 0]))
  assert counts.tolist() == [0, 0, 12, 12, 5, 11, 0]
