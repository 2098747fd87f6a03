"""Fields whose values are sets: a set's vector is the mean of its members'.

Members have the tables that are trained, as many as the plan gives a field.
What a model reads are tables of sets, made of these: it needs no code of its
own for them, and gradients flow to the members.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from dare_jax.embeddings import plans

_UNROLLED = 8  # members of a set that are read without a loop


@dataclasses.dataclass(frozen=True)
class SetShape:
  """What the sets of a field are made of.

  Attributes:
    field: the name of the field.
    num_members: rows of a table of members, padding and unknown included.
    widest: members of the largest set.
  """

  field: str
  num_members: int
  widest: int


@dataclasses.dataclass(frozen=True)
class SetFeature(plans.Feature):
  """A field of sets; `vocab_size` is how many sets there are.

  Attributes:
    num_members: as `SetShape` has it.
    widest: likewise.
  """

  num_members: int = 1
  widest: int = 1

  @property
  def trained_rows(self) -> int:
    return self.num_members


def pooled(
  table: Float[Array, 'n d'],
  first: Int[Array, ' t'],
  member: Int[Array, ' f'],
  ids: Int[Array, ' u'],
  widest: int,
) -> Float[Array, 'u d']:
  """Returns the mean of the members' vectors of some sets.

  The sum is made member by member, so that memory follows the sets alone.

  Args:
    table: vectors of members, by id.
    first: as `store.set_members.SetMembers` has it.
    member: likewise.
    ids: of sets; one that is too large is read as the last.
    widest: no set has more members.
  """
  ids = jnp.clip(ids, 0, len(first) - 2)
  start = first[ids]
  size = first[ids + 1] - start

  def vectors(number: jax.Array | int) -> jax.Array:
    own = member.at[start + number].get(mode='clip')
    return table[own]

  def add(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
    is_there = (number < size)[:, None]
    return total + jnp.where(is_there, vectors(number), 0), None

  numbers = jnp.arange(1, widest)
  total, _ = jax.lax.scan(add, vectors(0), numbers, unroll=_UNROLLED)
  return total / size[:, None].astype(total.dtype)
