"""Which values the sets of a field are made of: members, with ids of their own.

A set is one id of its field, as any value is. Beside it, its members have ids
by their first appearance in the sets: 0 padding, 1 unknown, 2.. the rest. The
padding set is made of padding, the unknown set of the unknown member, and the
empty set of a member whose raw value is ''.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from dare_jax.logs import id_map
from dare_jax.store import history_store


@dataclasses.dataclass(frozen=True)
class SetMembers:
  """The members of all sets of a field; every set has one at least.

  Attributes:
    raw: distinct members; that at position i has the id i + 2.
    first: int32 [sets + 1]; the members of set i are first[i] up to
      first[i + 1].
    member: int32 [n], ids of members, those of one set after another.
  """

  raw: pl.Series
  first: np.ndarray
  member: np.ndarray

  @property
  def num_members(self) -> int:
    """Rows that a table of members needs, padding and unknown included."""
    return id_map.FIRST + len(self.raw)

  @property
  def widest(self) -> int:
    """The size of the largest set."""
    return int(np.diff(self.first).max(initial=1))

  def in_sets(self, sets: np.ndarray) -> np.ndarray:
    """Returns bool [members], which ones are in some of the sets.

    Args:
      sets: bool [sets], which sets; padding and the unknown one among them.
    """
    found = np.zeros(self.num_members, bool)
    found[self.member[np.repeat(sets, np.diff(self.first))]] = True
    return found

  def counts(self, sets: np.ndarray) -> np.ndarray:
    """Returns how often each member occurs, given how often each set does."""
    weights = np.repeat(sets, np.diff(self.first))
    found = np.bincount(self.member, weights, minlength=self.num_members)
    return found.astype(np.int64)

  def of_known(self, known: np.ndarray) -> SetMembers:
    """Returns the sets without the members that are not known.

    A set of which none is known is made of the unknown member.

    Args:
      known: bool [members].
    """
    keep = known[self.member]
    before = np.concatenate([[0], np.cumsum(keep)])
    sizes = np.diff(before[self.first])
    keep[self.first[:-1][sizes == 0]] = True
    member = np.where(known[self.member], self.member, id_map.UNKNOWN)[keep]
    first = np.concatenate([[0], np.cumsum(np.maximum(sizes, 1))])
    return SetMembers(self.raw, first.astype(np.int32), member.astype(np.int32))

  def are_known(self) -> np.ndarray:
    """Returns bool [sets], which are made of known members; see `of_known`."""
    found = self.member[self.first[:-1]] != id_map.UNKNOWN
    found[: id_map.FIRST] = True
    return found


def of_store(store: history_store.HistoryStore) -> dict[str, SetMembers]:
  """Returns field -> members, of the fields whose values are sets."""
  return {
    field: of_names(store.raw_ids(field), separator)
    for field, separator in store.sets.items()
  }


def of_names(names: pl.Series, separator: str) -> SetMembers:
  """Returns the members of sets, as `logs.values.set_values` names these.

  Args:
    names: of the sets; row i has the id i + 2.
    separator: between two members.
  """
  parts = names.str.split(separator)
  every = parts.explode(empty_as_null=False).cast(pl.String)
  raw = every.unique(maintain_order=True)
  special = [id_map.PADDING, id_map.UNKNOWN]
  sizes = np.concatenate([[1] * len(special), parts.list.len().to_numpy()])
  ids = id_map.lookup(raw, every).to_numpy()
  return SetMembers(
    raw,
    np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
    np.concatenate([special, ids]).astype(np.int32),
  )
