"""Keeping behaviors by a mask over the window, rather than as a list.

The usual way reads the representation vectors of the k behaviors kept, for
each target anew. With a mask, the vectors of the window are read once, and the
weights of all its behaviors, zero but for those kept, multiply them: a product
of matrices, which does more, far faster. It pays where many targets share a
window that is not too long.

It is for callers that want no more than logits. Others are told which behaviors
are kept, as a list; on TPUs their vectors are weighed where they lie, too, by
weights put back at their places: `kept_in_place` of a ranker's config.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from dare_jax import shapes
from dare_jax import types
from dare_jax.topk import counting

# To read and weigh the vectors of a behavior kept takes as long as to multiply
# those of so many by their weights, or to read those of half as many.
_PRODUCTS = 32
_READ = 16
# All that is done to scores then stays in the caches of a core.
_SCORES_AT_ONCE = 1 << 18


def pays(config: Any, batch: types.Batch) -> bool:
  """Returns whether to keep behaviors of a batch by a mask.

  Never on an accelerator, where neither way is measured.

  Args:
    config: of the model, whose aggregation is a softmax of scores.
    batch: what it is asked; shapes alone are read.
  """
  length = batch.history.mask.shape[1]
  targets = batch.targets.label[0].size
  if not shapes.are_known(length, targets):
    return False
  if jax.default_backend() != 'cpu':
    return False
  if config.interest_heads > 1:  # More is made of each vector.
    return False
  # The position of a cluster is its own, and its vector is read in any case.
  if config.search in ('all', 'clusters') or config.keep_padding:
    return False
  if length > counting.WHOLE:
    return False
  return length * (targets + _READ) < _PRODUCTS * config.top_k * targets


def without_behaviors(result: types.SearchResult) -> types.SearchResult:
  """Returns what a search found, but for what it has of each behavior."""
  nothing = lambda x: x[..., :0]
  return dataclasses.replace(
    result,
    indices=nothing(result.indices),
    scores=nothing(result.scores),
    mask=nothing(result.mask),
    distance=nothing(result.distance),
    gap=None if result.gap is None else nothing(result.gap),
  )


def scores_at_once(config: Any, as_mask: bool) -> int:
  """Returns for how many scores of behaviors memory is taken at once.

  Args:
    config: of the model.
    as_mask: whether the search keeps behaviors by a mask.
  """
  own = config.scores_at_once
  return min(own, _SCORES_AT_ONCE) if as_mask else own
