"""How many ids are unknown, and what share of the targets has one."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np

from dare_jax.data import options
from dare_jax.data import splits
from dare_jax.data import targets
from dare_jax.logs import id_map
from dare_jax.store import history_store

# Moments of a split whose targets are looked at, evenly spread over it.
_MOMENTS = 50_000
_SPLITS = ('val', 'test')
_NONE = 'none: data.unknown_rate=0, every id keeps its row'


def lines(
  store: history_store.HistoryStore,
  made: Mapping[str, splits.Moments],
  data: options.PipelineOptions,
  known: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, str]]:
  """Yields names and texts, as in a data card.

  Args:
    store: the history store.
    made: the moments of each split.
    data: how rows are made.
    known: field -> bool [ids], whether training reads an id.

  Raises:
    UsageError: a moment without a possible negative.
  """
  if data.unknown_rate == 0:
    yield 'unknown ids:', _NONE
    return
  yield 'ids not in training:', f'{_counts(known)}; read as the unknown id'
  for split in _SPLITS:
    texts = ', '.join(
      f'{field} {positive:.2%} and {negative:.2%}'
      for field, (positive, negative) in _shares(
        store, made[split], data, split, known
      ).items()
    )
    yield f'unknown in {split}:', f'of positives and of negatives {texts}'


def short(
  store: history_store.HistoryStore,
  made: Mapping[str, splits.Moments],
  data: options.PipelineOptions,
  known: Mapping[str, np.ndarray],
) -> str:
  """Returns one line on unknown ids, with shares of the positives alone.

  Args:
    store: the history store.
    made: the moments of each split.
    data: how rows are made.
    known: field -> bool [ids], whether training reads an id.

  Raises:
    UsageError: a moment without a possible negative.
  """
  if data.unknown_rate == 0:
    return _NONE
  texts = []
  for split in _SPLITS:
    shares = _shares(store, made[split], data, split, known)
    of_split = ', '.join(f'{k} {v:.2%}' for k, (v, _) in shares.items())
    texts.append(f'of {split} positives {of_split}')
  return f'not in training: {_counts(known)}; {"; ".join(texts)}'


def _counts(known: Mapping[str, np.ndarray]) -> str:
  return ', '.join(
    f'{field} {int((~flags).sum()):,} of {len(flags) - id_map.FIRST:,}'
    for field, flags in known.items()
  )


def _shares(
  store: history_store.HistoryStore,
  moments: splits.Moments,
  data: options.PipelineOptions,
  split: str,
  known: Mapping[str, np.ndarray],
) -> dict[str, tuple[float, float]]:
  """Returns field -> unknown share of positives, and of negatives."""
  count = min(len(moments), _MOMENTS)
  number = np.arange(count) * len(moments) // count
  build = targets.TargetBuilder(store, data, split, seed=0)
  ids, label, weight, _ = build(
    moments.take(number), number, np.zeros_like(number)
  )
  parts = [(weight > 0) & (label > 0.5), (weight > 0) & (label < 0.5)]
  result = {}
  for field, flags in known.items():
    is_unknown = ~flags[ids[field]]
    positive, negative = (
      float(is_unknown[part].mean()) if part.any() else 0.0 for part in parts
    )
    result[field] = positive, negative
  return result
