"""A function of windows, for a few of them at a time.

Scores of m moments, c targets and l behaviors a window are what memory goes to.
Few enough at once stay in the processor's caches, which makes the whole faster
by far more than what the backward pass makes anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from dare_jax import shapes
from dare_jax.search import view as search_view

_Found = TypeVar('_Found')
# What a model of windows reads; nothing in it changes from one to the next.
_VARIABLES = ('params', 'tables', 'constants')


def size(at_once: int, of_window: shapes.Size) -> int | None:
  """Returns how many windows to take at a time.

  Args:
    at_once: number of scores for which memory is taken.
    of_window: number of scores of one window.

  Returns:
    At least 1; None in a program for any size, which cannot choose.
  """
  if not shapes.are_known(of_window):
    return None
  return max(1, at_once // of_window)


def apply(
  module: nn.Module,
  function: Callable[[Any, Any], _Found],
  inputs: Any,
  size: int | None,
) -> _Found:
  """Returns `function(module, inputs)`, made of a few windows at a time.

  The backward pass makes the inside of the function anew, apart from the
  choice of the behaviors found. In value and gradient nothing changes.

  Args:
    module: the module whose variables the function may read.
    function: takes windows apart: row b of what it returns is of row b of its
      inputs.
    inputs: arrays [b, ...], at least one.
    size: most windows at a time, as `size` gives it; b of them or more, or
      None: all at once.
  """
  count = jax.tree.leaves(inputs)[0].shape[0]
  if size is None or module.is_initializing() or size >= count:
    return function(module, inputs)
  # Even turns: a rest of another size would be compiled once more.
  size = -(-count // -(-count // size))
  step = nn.remat(
    function,
    prevent_cse=False,  # The loop does.
    policy=jax.checkpoint_policies.save_only_these_names(search_view.CHOICE),
  )
  loop = nn.scan(
    lambda module, carry, inputs: (carry, step(module, inputs)),
    variable_broadcast=_VARIABLES,
    split_rngs={'params': False},
  )
  whole = count // size * size
  parts = jax.tree.map(
    lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), inputs
  )
  _, found = loop(module, (), parts)
  found = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), found)
  if whole == count:
    return found
  rest = step(module, jax.tree.map(lambda x: x[whole:], inputs))
  return jax.tree.map(lambda *xs: jnp.concatenate(xs), found, rest)
