"""`dare_jax.train` in float64: parameters, slots and batches.

    JAX_PLATFORMS=cpu python -m tests.parallel.wide --workdir=DIR ...

Losses of several devices then differ by so little that a whole training does
not make more of it.
"""

from __future__ import annotations

import runpy
from typing import Any

import jax
import jax.numpy as jnp

from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import state as train_state
from tests.models import examples


class Trainer(train_state.Trainer):
  """A trainer whose states are float64."""

  def init(self, seed: int, batch: Any) -> Any:
    state = super().init(seed, batch)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(examples.to_float64, out_shardings=shardings)(state)

  def abstract_state(self, batch: Any) -> Any:
    state = super().abstract_state(batch)
    wide = jax.eval_shape(examples.to_float64, state)
    return jax.tree.map(
      lambda x, to: jax.ShapeDtypeStruct(
        to.shape, to.dtype, sharding=x.sharding
      ),
      state,
      wide,
    )


def main() -> None:
  jax.config.update('jax_enable_x64', True)
  place = mesh_lib.place
  wide = lambda x: x.astype('f8') if jnp.issubdtype(x.dtype, 'f4') else x
  mesh_lib.place = lambda mesh, batch: place(mesh, jax.tree.map(wide, batch))
  train_state.Trainer = Trainer
  runpy.run_module('dare_jax.train', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
