"""How a log becomes splits and batches: fields of the config's `data`."""

from __future__ import annotations

import dataclasses

import ml_collections

# A date, or a number in the unit of the log; None: not given.
Time = str | int | float | None


@dataclasses.dataclass(frozen=True)
class SplitOptions:
  """Which moments train, validate and test; see `configs/base.py`.

  Attributes:
    split: the protocol, a key of `splits.PROTOCOLS`.
    min_events: users with fewer behaviors have no targets.
    min_history: behaviors before a target; `leave_last` does not ask for it.
    max_train_moments: number of a user's moments that train, the latest ones;
      None: all.
    train_positions: for `leave_last`: first, last and step of the training
      moments, counted from the end of the history.
    train_from: for `by_time`: the time at which training moments begin.
    val_from: for `by_time`: the time at which validation moments begin.
    test_from: for `by_time`: the time at which test moments begin.
    num_negatives: sampled for each positive; a moment of a log with labels
      holds up to one more logged impressions.
  """

  split: str
  min_events: int
  min_history: int
  max_train_moments: int | None
  train_positions: tuple[int, ...]
  train_from: Time
  val_from: Time
  test_from: Time
  num_negatives: int


@dataclasses.dataclass(frozen=True)
class PipelineOptions(SplitOptions):
  """What a row of a batch holds, and in which order; see `configs/base.py`.

  A pipeline must know its split, too: negatives come from before its dates.

  Attributes:
    history_length: behaviors seen from a target.
    max_padding: greatest share of padding in the history slots of a batch;
      None: all histories have one length.
    group_candidates: whether the targets of a moment share a row.
    in_batch_negatives: candidates of a training moment that are positives of
      other moments of its batch.
    exclude: one of `negatives.EXCLUDE`: the items that are never negatives.
    fresh_negatives: whether each epoch draws its own negatives.
    reshuffle: whether each epoch has an order of its own.
    unknown_rate: share of ids that become the unknown id in training; 0: there
      is no unknown id.
  """

  history_length: int
  max_padding: float | None
  group_candidates: bool
  in_batch_negatives: int
  exclude: str
  fresh_negatives: bool
  reshuffle: bool
  unknown_rate: float


def of_section(section: ml_collections.ConfigDict) -> PipelineOptions:
  """Returns the options that a config's section `data` holds."""
  names = [field.name for field in dataclasses.fields(PipelineOptions)]
  return PipelineOptions(**{name: section[name] for name in names})
