"""What an analysis and its figures are."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import types
from typing import Any

from dare_jax.analysis import sources
from dare_jax.analysis.drawing import panels


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of text under a title; columns but the first are numbers."""

  title: str
  columns: Sequence[str]
  rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Figure:
  """How the JSON of a figure is shown; nothing else is read.

  Attributes:
    name: the stem of the figure's files.
    title: the heading above the figure in the report.
    sentence: returns, for the JSON, the sentence that says what the numbers
      show.
    panels: returns, for the JSON, the panels to draw; none for a figure that is
      a table.
    tables: returns, for the JSON, the tables that stand under the panels.
  """

  name: str
  title: str
  sentence: Callable[[Any], str]
  panels: Callable[[Any], list[panels.Panel]]
  tables: Callable[[Any], list[Table]]


@dataclasses.dataclass(frozen=True)
class Analysis:
  """A measurement and the figures that show it.

  Attributes:
    name: the name that `--only` takes.
    measure: returns figure name -> what its JSON holds; a figure may be left
      out where the log has nothing for it. Its arguments are the runs, a
      function that prints progress, and the folder of the report for further
      files, which the JSON lists under `files`.
    figures: the figures that show the numbers, in the order of the report.
    modules: the modules that compute the numbers; when one of them changes, the
      numbers are computed again.
    files: names of the files of a run that are read besides its checkpoint.
  """

  name: str
  measure: Callable[
    [sources.Sources, Callable[[str], None], Any], Mapping[str, Any]
  ]
  figures: Sequence[Figure]
  modules: Sequence[types.ModuleType]
  files: Sequence[str] = ()


def nothing(data: Any) -> list[Any]:
  """Returns the panels or tables of a figure that has none."""
  del data
  return []


def listed(words: Sequence[str]) -> str:
  """Returns words as a sentence lists them.

  >>> listed(['a', 'b', 'c'])
  'a, b and c'
  """
  if len(words) < 2:
    return ''.join(words)
  return f'{", ".join(words[:-1])} and {words[-1]}'


def number(value: float | None, digits: int = 3) -> str:
  """Returns a number for a table; a dash where there is none."""
  return '–' if value is None else f'{value:.{digits}f}'


def estimate(value: Mapping[str, float] | None, digits: int = 3) -> str:
  """Returns a mean and its interval for a table."""
  if value is None:
    return '–'
  mean, low, high = (f'{value[k]:.{digits}f}' for k in ('mean', 'low', 'high'))
  return f'{mean} ({low} to {high})'
