"""A run of a second and its bundle, and the same history in both."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from dare_jax import bundle
from dare_jax import trained
from dare_jax.bundle.making import exporting
from tests import tiny

# Small and odd, so that most calls are padded or split.
SHAPES = '1x4,3x4,1x2x16'


def train(
  root: pathlib.Path, workdir: pathlib.Path, **fields: Any
) -> dict[str, Any]:
  """Trains where a log is, far from the initial values; returns the result."""
  settings = {
    'train__steps': 12,
    'eval__every_steps': 0,
    'checkpoint__every_steps': 0,
    'optim__learning_rate': 0.1,
    **fields,
  }
  return tiny.run(tiny.config(root, **settings), workdir)


def export(workdir: pathlib.Path, output: pathlib.Path, **options: Any) -> None:
  """Exports with few shapes."""
  chosen = exporting.Options(**{'shapes': SHAPES, **options})
  exporting.export(workdir, output, chosen)


def raw(rng: np.random.Generator, count: int) -> dict[str, list[str]]:
  """Returns raw values of the log of `tiny`, and some that it has not."""
  items = rng.integers(0, 110, count)
  return {
    'item': [f'i{item}' for item in items],
    'category': [f'c{item % 10}' for item in items],
  }


def ids(
  opened: bundle.Bundle, columns: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns the ids of raw values."""
  return {field: opened.ids(field, raw) for field, raw in columns.items()}


def assert_same(
  opened: bundle.Bundle,
  run: trained.Trained,
  histories: Any,
  candidates: Any,
  atol: float = 1e-6,
) -> None:
  """A bundle's scores of users, scored together, are those of the run."""
  scores = opened.score(
    [ids(opened, history) for history in histories],
    [ids(opened, some) for some in candidates],
  )
  for history, some, one in zip(histories, candidates, scores, strict=True):
    expected = run.score(history, some)
    assert_close(one.logit, expected, atol)


def assert_close(
  logits: np.ndarray, expected: np.ndarray, atol: float = 1e-6
) -> None:
  """Probabilities are the run's to `atol`, logits to its fivefold.

  A logit is a sum of float32 numbers in another order; those of these runs,
  which learn a hundred times as fast as others, are as large as 10.
  """
  np.testing.assert_allclose(
    bundle.probabilities(logits),
    bundle.probabilities(expected),
    rtol=0,
    atol=atol,
  )
  np.testing.assert_allclose(logits, expected, rtol=0, atol=5 * atol)
