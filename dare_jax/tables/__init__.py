"""Large embedding tables, trained by rows on one device or many.

For any model in JAX: Flax Linen, Flax NNX or plain functions. A `TableSet` says
which tables there are and how they lie in storage; a `TableUpdater` moves the
rows that a batch reads, in place, by an optimizer such as `lazy_adam`. A step
runs inside `jax.shard_map` over a mesh that `make_mesh` made, of one device as
well: `TableSet.find_rows` (or a `RowFinder` on the host), `TableSet.gather`,
the model, `TableUpdater.update`. See docs/tables.md for a whole training.
"""

from dare_jax.parallel.mesh import AXIS
from dare_jax.parallel.mesh import make as make_mesh
from dare_jax.parallel.mesh import place
from dare_jax.parallel.mesh import shardings
from dare_jax.parallel.mesh import SPLIT
from dare_jax.parallel.mesh import WHOLE
from dare_jax.tables.exchange import gather as gather_rows
from dare_jax.tables.exchange import varying
from dare_jax.tables.joined import apart
from dare_jax.tables.joined import Joined
from dare_jax.tables.joined import names as table_names
from dare_jax.tables.joined import read as read_table
from dare_jax.tables.joined import write as write_table
from dare_jax.tables.optimizers import adam
from dare_jax.tables.optimizers import lazy_adam
from dare_jax.tables.optimizers import OPTIMIZERS
from dare_jax.tables.optimizers import Rate
from dare_jax.tables.optimizers import row_adagrad
from dare_jax.tables.optimizers import sgd
from dare_jax.tables.optimizers import TableOptimizer
from dare_jax.tables.table_set import DTYPES
from dare_jax.tables.table_set import LAYOUTS
from dare_jax.tables.table_set import TableSet
from dare_jax.tables.table_set import TableSpec
from dare_jax.tables.unique import find_rows
from dare_jax.tables.unique import row_capacity
from dare_jax.tables.unique import RowFinder
from dare_jax.tables.unique import UniqueRows
from dare_jax.tables.update import TableUpdater

__all__ = [
  'AXIS',
  'DTYPES',
  'Joined',
  'LAYOUTS',
  'OPTIMIZERS',
  'Rate',
  'RowFinder',
  'SPLIT',
  'TableOptimizer',
  'TableSet',
  'TableSpec',
  'TableUpdater',
  'UniqueRows',
  'WHOLE',
  'adam',
  'apart',
  'find_rows',
  'gather_rows',
  'lazy_adam',
  'make_mesh',
  'place',
  'read_table',
  'row_adagrad',
  'row_capacity',
  'sgd',
  'shardings',
  'table_names',
  'varying',
  'write_table',
]
