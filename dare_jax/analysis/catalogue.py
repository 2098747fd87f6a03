"""All analyses, by name, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence
import difflib

from dare_jax import errors
from dare_jax.analysis import attention_maps
from dare_jax.analysis import cases
from dare_jax.analysis import discriminability
from dare_jax.analysis import forward
from dare_jax.analysis import information
from dare_jax.analysis import planted
from dare_jax.analysis import ranking
from dare_jax.analysis import resampling
from dare_jax.analysis import search
from dare_jax.analysis import search_quality
from dare_jax.analysis import slices
from dare_jax.analysis import sources
from dare_jax.analysis.drawing import discriminability_figures
from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import search_figures
from dare_jax.analysis.drawing import slices_figures
from dare_jax.comparison import bootstrap

ANALYSES = (
  figure.Analysis(
    'search',
    search.measure,
    search_figures.FIGURES,
    (
      *(attention_maps, cases, forward, information, planted, ranking),
      *(resampling, search, search_quality, sources),
    ),
  ),
  figure.Analysis(
    'slices',
    slices.measure,
    slices_figures.FIGURES,
    (slices, forward, resampling, sources, bootstrap),
  ),
  figure.Analysis(
    'discriminability',
    discriminability.measure,
    discriminability_figures.FIGURES,
    (discriminability, forward, sources),
  ),
)


def choose(only: Sequence[str]) -> list[figure.Analysis]:
  """Returns the analyses of some names, in the catalogue's order.

  Args:
    only: names; none for all.

  Raises:
    UsageError: an unknown name.
  """
  known = {analysis.name: analysis for analysis in ANALYSES}
  for name in only:
    if name not in known:
      close = difflib.get_close_matches(name, known, n=1)
      hint = f' Did you mean {close[0]}?' if close else ''
      raise errors.UsageError(
        f'--only={name}: expected one of {", ".join(known)}.{hint}'
      )
  return [a for a in ANALYSES if not only or a.name in only]
