"""How large the parts of the check are: for a machine, or to try them out."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of all parts.

  Attributes:
    array_mb: megabytes of the array that is copied to measure memory bandwidth.
    matrix: rows of the matrices that are multiplied.
    steps: number of steps of the training that is compared with the CPU's.
    moments: moments a step, in that training and in the check of a repeated
      step.
    parity_rows: number of rows of the item tables in that training.
    length: behaviors of a history in training and scoring.
    models: presets whose training is timed.
    rows: numbers of rows of the item tables of the trainings that are timed.
    batches: moments of a step of those.
    step_seconds: about how many seconds each step size is timed.
    behaviors: number of behaviors of a history whose keys are cached.
    users: number of users whose keys are searched at once.
    dim: width of a cached key.
    candidates: targets of a user in a search.
    scored: targets of a request that is scored.
    serving_rows: number of rows of the item tables of the model that scores.
    top_k: number of behaviors to keep.
    calls: number of calls whose latency is measured.
  """

  array_mb: int = 1024
  matrix: int = 8192
  steps: int = 50
  moments: int = 128
  parity_rows: int = 100_000
  length: int = 200
  models: tuple[str, ...] = ('dare', 'twin', 'din')
  rows: tuple[int, ...] = (1_000_000, 100_000_000)
  batches: tuple[int, ...] = (683, 8192)
  step_seconds: float = 3.0
  behaviors: int = 50_000
  users: int = 64
  dim: int = 32
  candidates: tuple[int, ...] = (1, 128)
  scored: tuple[int, ...] = (1, 100, 500)
  serving_rows: int = 1_000_000
  top_k: int = 20
  calls: int = 200


# What a CPU runs in a minute or two, to try the check; figures mean nothing.
SMALL = Sizes(
  array_mb=4,
  matrix=256,
  steps=6,
  moments=8,
  parity_rows=5_000,
  length=24,
  models=('dare',),
  rows=(5_000,),
  batches=(8,),
  step_seconds=0.05,
  behaviors=700,
  users=2,
  dim=8,
  candidates=(1, 5),
  scored=(3,),
  serving_rows=5_000,
  top_k=5,
  calls=3,
)
