"""Tables of sets, as a model reads them, of the tables of members trained."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import tables as tables_lib
from dare_jax.embeddings import plans
from dare_jax.embeddings import sets
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.tables import layout

if TYPE_CHECKING:  # Steps are taken without what reads stores, too.
  from dare_jax.store import set_members

MEMBERS = 'sets'
# Field -> 'first' and 'member' of its `set_members.SetMembers`, on the mesh.
Members = Mapping[str, Mapping[str, Any]]


class SetTables:
  """Makes the tables of sets that a model reads, if it reads some.

  Attributes:
    vocab_sizes: field -> sets, where they are so many that a step makes the
      vectors of those alone that its batch reads.
  """

  def __init__(
    self, content: Sequence[plans.Feature], plan: str, row_sparse_from: int
  ) -> None:
    """Looks for sets among features.

    Args:
      content: features of a behavior.
      plan: name in `plans.PLANS`.
      row_sparse_from: from how many sets on they are many.
    """
    self._features = [
      feature for feature in content if isinstance(feature, sets.SetFeature)
    ]
    own = plans.PLANS[plan]
    # A step may run on a copy of a table for each role.
    copied = plans.PLANS[own.by_role or plan]
    self._names = {
      feature.name: {*feature.tables(own), *feature.tables(copied)}
      for feature in self._features
    }
    self.vocab_sizes = {
      feature.name: feature.vocab_size
      for feature in self._features
      if feature.vocab_size >= row_sparse_from
    }

  def __call__(
    self,
    constants: Mapping[str, Any],
    tables: Mapping[str, Any],
    rows: Mapping[str, jax.Array],
  ) -> dict[str, Any]:
    """Returns the tables that a model reads.

    Args:
      constants: of a training state, by the name `MEMBERS` what sets are made
        of.
      tables: those of members by id, and all others as they are to be.
      rows: field -> positions of the sets that a batch reads, as
        `types.Batch` has them; of fields that are not there, all sets are made.
    """
    made, members = dict(tables), constants.get(MEMBERS, {})
    for feature in self._features:
      field = feature.name
      ids = jnp.arange(feature.vocab_size)
      if field in rows:
        ids = layout.row_at(rows[field], layout.padded(feature.vocab_size))
      own = members[field]['first'], members[field]['member']
      for name in sorted(self._names[field] & tables.keys()):
        table = tables[name]
        if field in rows:  # Else each member's gradient is summed by itself.
          table = tables_lib.varying(table)
        made[name] = sets.pooled(table, *own, ids, feature.widest)
    return made


def on_mesh(
  members: Mapping[str, set_members.SetMembers], mesh: jax.sharding.Mesh
) -> Members:
  """Returns what sets are made of, whole on each device."""

  def place(values: np.ndarray) -> jax.Array:
    sharding = jax.sharding.NamedSharding(mesh, mesh_lib.WHOLE)
    return jax.make_array_from_callback(
      values.shape, sharding, values.__getitem__
    )

  return {
    field: {'first': place(own.first), 'member': place(own.member)}
    for field, own in members.items()
  }


def shapes(
  members: Mapping[str, set_members.SetMembers], mesh: jax.sharding.Mesh
) -> Members:
  """Returns shapes, dtypes and shardings of what `on_mesh` returns."""
  sharding = jax.sharding.NamedSharding(mesh, mesh_lib.WHOLE)
  shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
  return {
    field: {'first': shape(own.first), 'member': shape(own.member)}
    for field, own in members.items()
  }
