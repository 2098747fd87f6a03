"""The form of a training state in checkpoints: all tables apart.

Whatever their layout in memory, so that a checkpoint fits any. What is joined
is read, and taken over, leaf by leaf: beside the state a device holds a single
table or slot of the other form.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dare_jax import tables as tables_lib
from dare_jax.training import state_parts

TrainState = state_parts.TrainState
_HOST = 'pinned_host'


@dataclasses.dataclass(frozen=True)
class _Joined:
  """A leaf that lies in lines; no node of a tree."""

  table: Any
  column: Any


def _places(state: TrainState) -> TrainState:
  """Returns the saved form with `_Joined` for what is to be read of lines."""
  if not is_joined(state):
    return state
  tables, slots = tables_lib.apart(
    state.tables['encoder'], state.table_slots, _Joined
  )
  return dataclasses.replace(
    state, tables={'encoder': tables}, table_slots=slots
  )


def shapes(state: TrainState) -> TrainState:
  """Returns the shapes, dtypes and shardings of a state's saved form.

  Args:
    state: arrays, or their shapes, dtypes and shardings.
  """

  def of(leaf: Any) -> jax.ShapeDtypeStruct:
    """Returns the shape of one leaf, with the sharding that it is read to."""
    found, array = leaf, leaf
    if isinstance(leaf, _Joined):
      array = leaf.table.lines
      found = jax.eval_shape(lambda t: t.read(leaf.column), leaf.table)
    return jax.ShapeDtypeStruct(
      found.shape, found.dtype, sharding=array.sharding
    )

  return jax.tree.map(of, _places(state))


def tree(state: TrainState) -> Any:
  """Returns the structure of a state's saved form."""
  return jax.tree.structure(_places(state))


def of_state(state: TrainState) -> Iterator[jax.Array]:
  """Yields the leaves of a state's saved form, in the order of its tree."""
  for leaf in jax.tree.leaves(_places(state)):
    if isinstance(leaf, _Joined):
      sharding = leaf.table.lines.sharding
      read = jax.jit(
        tables_lib.Joined.read, static_argnums=1, out_shardings=sharding
      )
      leaf = read(leaf.table, leaf.column)
    yield leaf


def to_host(leaf: jax.Array) -> jax.Array:
  """Returns an array in the memory of the device's host."""
  return jax.device_put(leaf, leaf.sharding.with_memory_kind(_HOST))


def is_joined(state: TrainState) -> bool:
  """Returns whether any table of a state does not lie as it is saved."""
  return any(map(_is_lines, jax.tree.leaves(state.tables, is_leaf=_is_lines)))


def to_state(template: TrainState, found: Iterable[jax.Array]) -> TrainState:
  """Returns the state whose saved form has these leaves.

  Args:
    template: the state, or shapes, dtypes and shardings of it.
    found: the leaves of a state, in the order in which `of_state` yields them.
  """
  lines: dict[Any, Any] = {}
  others = []
  for place, leaf in zip(
    jax.tree.leaves(_places(template)), found, strict=True
  ):
    if not isinstance(place, _Joined):
      others.append(leaf)
      continue
    plan, like = place.table.plan, place.table.lines
    if plan not in lines:
      zeros = jnp.zeros(like.shape, like.dtype, device=like.sharding)
      lines[plan] = tables_lib.Joined(zeros, plan)
    write = jax.jit(
      tables_lib.Joined.write,
      static_argnums=1,
      donate_argnums=0,
      out_shardings=like.sharding,
    )
    lines[plan] = write(lines[plan], place.column, leaf)
  left = iter(others)
  return jax.tree.map(
    lambda leaf: lines[leaf.plan] if _is_lines(leaf) else next(left),
    template,
    is_leaf=_is_lines,
  )


def _is_lines(node: Any) -> bool:
  return isinstance(node, tables_lib.Joined)
