"""What is told of a training state: is it finite, how large is it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dare_jax import tables as tables_lib
from dare_jax.training import state as train_state


@jax.jit
def is_finite(state: train_state.TrainState) -> jax.Array:
  """Returns whether all parameters and sums are finite: worth saving."""
  tables, _ = tables_lib.apart(state.tables['encoder'], state.table_slots)
  leaves = jax.tree.leaves((state.params, tables, state.sums))
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))


def count_parameters(
  state: train_state.TrainState, tables: tables_lib.TableSet
) -> dict[str, int]:
  """Returns parameters by role; a table of both counts as representation."""
  counts = {'attention_tables': 0, 'representation_tables': 0, 'other': 0}
  for name, spec in tables.specs.items():
    is_attention = '_attention' in name
    role = 'attention_tables' if is_attention else 'representation_tables'
    counts[role] += spec.rows * spec.dim
  counts['other'] = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  return counts
