"""Single targets on which the searches of models disagree most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dare_jax.analysis import forward
from dare_jax.analysis import information
from dare_jax.analysis import ranking
from dare_jax.analysis import search_quality
from dare_jax.analysis import sources as sources_lib

SHOWN = 5
_BEHAVIORS = 10


class Cases:
  """Keeps the clicked rows whose NDCG differs most between models."""

  def __init__(self, quality: search_quality.Quality, label: np.ndarray):
    self._quality = quality
    self._label = label
    # Difference, row, the best positions and what these are worth.
    self._kept: list[tuple[float, int, np.ndarray, np.ndarray]] = []

  def visit(self, seen: search_quality.Seen) -> None:
    """Looks at some rows of one target category; keeps the first of them."""
    of_models = np.stack(
      [of['own search'][seen.index] for of in self._quality.ndcg.values()]
    )
    differ = np.ptp(of_models, axis=0) if len(of_models) > 1 else -of_models[0]
    differ = np.where(self._label[seen.index], differ, np.nan)
    if np.isnan(differ).all():
      return
    top = int(np.nanargmax(differ))
    gain = seen.information[[top]]
    best = ranking.best(gain, _BEHAVIORS)
    bits = ranking.gains_of(gain, best)[0]
    self._kept.append((float(differ[top]), int(seen.index[top]), best[0], bits))
    self._kept = sorted(self._kept, key=lambda case: -case[0])[:SHOWN]

  def data(
    self,
    sources: sources_lib.Sources,
    lists: Mapping[str, forward.Arrays],
    rows: information.Rows,
  ) -> list[dict[str, Any]]:
    """Returns the cases with raw names, the greatest difference first."""
    names = {field: sources.raw(field) for field in ('item', 'category')}
    columns = sources.store.behaviors.columns
    moment, slot = np.nonzero(sources.test.real)
    cases, keep = [], self._quality.keep
    for _, row, best, bits in self._kept:
      item = sources.test.ids['item'][moment[row], slot[row]]
      behaviors = []
      for position, worth in zip(best[best > 0], bits, strict=False):
        at = int(rows.end[row]) - int(position)
        ranks = {
          label: _rank(of['found'][row, :keep], int(position))
          for label, of in lists.items()
        }
        behaviors.append(
          {
            'position': int(position),
            'item': names['item'](columns['item_id'][at]),
            'category': names['category'](columns['category_id'][at]),
            'bits': float(worth),
            'rank': ranks,
          }
        )
      cases.append(
        {
          'item': names['item'](item),
          'category': names['category'](rows.target[row]),
          'ndcg': {
            label: float(of['own search'][row])
            for label, of in self._quality.ndcg.items()
          },
          'behaviors': behaviors,
        }
      )
    return cases


def _rank(found: np.ndarray, position: int) -> int | None:
  """Returns the place of a position in a list, from 1; None: not in it."""
  places = np.flatnonzero(found == position)
  return int(places[0]) + 1 if len(places) else None
