"""All analyses, by name, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence
import difflib

from dare_jax import errors
from dare_jax.analysis import attention_maps
from dare_jax.analysis import cases
from dare_jax.analysis import forward
from dare_jax.analysis import information
from dare_jax.analysis import planted
from dare_jax.analysis import planted_information
from dare_jax.analysis import ranking
from dare_jax.analysis import resampling
from dare_jax.analysis import search
from dare_jax.analysis import search_quality
from dare_jax.analysis import sources
from dare_jax.analysis.drawing import compared_figures
from dare_jax.analysis.drawing import discriminability_figures
from dare_jax.analysis.drawing import efficiency_figures
from dare_jax.analysis.drawing import figure
from dare_jax.analysis.drawing import gradients_figures
from dare_jax.analysis.drawing import history_figures
from dare_jax.analysis.drawing import projector_figures
from dare_jax.analysis.drawing import search_figures
from dare_jax.analysis.drawing import slices_figures
from dare_jax.analysis.learning import efficiency
from dare_jax.analysis.learning import gradients
from dare_jax.analysis.learning import projector
from dare_jax.analysis.quality import compared
from dare_jax.analysis.quality import discriminability
from dare_jax.analysis.quality import history
from dare_jax.analysis.quality import slices
from dare_jax.comparison import bootstrap
from dare_jax.runs import gradient_log
from dare_jax.training.roles import gradient_statistics

ANALYSES = (
  figure.Analysis(
    'compare',
    compared.measure,
    compared_figures.FIGURES,
    (compared, slices, forward, sources, bootstrap),
  ),
  figure.Analysis(
    'search',
    search.measure,
    search_figures.FIGURES,
    (
      *(attention_maps, cases, forward, information, planted),
      *(planted_information, ranking, resampling, search),
      *(search_quality, sources),
    ),
  ),
  figure.Analysis(
    'gradients',
    gradients.measure,
    gradients_figures.FIGURES,
    (gradients, gradient_statistics, sources),
    ('metrics.jsonl', gradient_log.FILE),
  ),
  figure.Analysis(
    'discriminability',
    discriminability.measure,
    discriminability_figures.FIGURES,
    (discriminability, forward, sources),
  ),
  figure.Analysis(
    'efficiency',
    efficiency.measure,
    efficiency_figures.FIGURES,
    (efficiency, forward, sources),
    ('metrics.jsonl', 'result.json'),
  ),
  figure.Analysis(
    'history',
    history.measure,
    history_figures.FIGURES,
    (history, forward, sources, bootstrap),
  ),
  figure.Analysis(
    'slices',
    slices.measure,
    slices_figures.FIGURES,
    (slices, forward, resampling, sources, bootstrap),
  ),
  figure.Analysis(
    'projector',
    projector.measure,
    projector_figures.FIGURES,
    (projector, sources),
  ),
)


def choose(only: Sequence[str]) -> list[figure.Analysis]:
  """Returns the analyses of some names, in the catalogue's order.

  Args:
    only: names of analyses; empty: all of them.

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
