"""What a model must be able to do for bulk scores; runs and bundles do it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import numpy as np

from dare_jax.prediction import asked as asked_lib
from dare_jax.prediction import history_log
from dare_jax.prediction import raw_ids


class Scorer(Protocol):
  """A model that scores targets after histories.

  Attributes:
    fields: the fields of a behavior and of a target: item, category, further
      ones.
    context_fields: the fields of a moment, which the head alone reads.
    user_fields: those of them that the model knows of a user.
    fingerprint: what the scores depend on, as JSON has it.
    reads_times: whether it must be told when behaviors and moments were.
  """

  @property
  def fields(self) -> Sequence[str]: ...

  @property
  def context_fields(self) -> Sequence[str]: ...

  @property
  def reads_times(self) -> bool: ...

  @property
  def user_fields(self) -> Sequence[str]: ...

  @property
  def fingerprint(self) -> Mapping[str, Any]: ...

  def ids(self, field: str, column: raw_ids.Column) -> np.ndarray:
    """Returns the model's ids of raw values: int32 [n].

    Raises:
      UsageError: a value that cannot be one of the field's.
    """

  def of_users(self, field: str, column: raw_ids.Column) -> np.ndarray:
    """Returns the model's ids of what users have of a user field: int32 [n].

    Args:
      field: one of `user_fields`.
      column: raw users; others than the model knows have the unknown value.
    """

  def has_value(self, field: str, value: str) -> bool:
    """Whether a text is a value of a field that the model knows of."""

  def is_unknown(self, field: str, ids: np.ndarray) -> np.ndarray:
    """Returns which ids stand for what the model does not know: bool [n]."""

  def score(
    self,
    asked: asked_lib.Asked,
    log: history_log.HistoryLog,
    check_stop: Callable[[], None],
  ) -> np.ndarray:
    """Returns the logits of targets, in their order: float32 [n].

    Args:
      asked: moments and targets, with the model's ids.
      log: the log that holds the behaviors before the moments.
      check_stop: called between batches; raises to give up.
    """
