"""Batches as pure functions of (seed, epoch, index), and a thread ahead.

Every example is a window: (user, end position, targets), or several of these
that share their user's history. Histories are cut out of the store when a batch
is assembled, so nothing is ever stored padded.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from dare_jax import errors
from dare_jax import types
from dare_jax.data import counter_rng
from dare_jax.data import length_groups
from dare_jax.data import options
from dare_jax.data import slices
from dare_jax.data import splits
from dare_jax.data import targets as targets_lib
from dare_jax.data import windows
from dare_jax.data.history import cutting
from dare_jax.data.ids import unknown_ids
from dare_jax.store import history_store


@dataclasses.dataclass(frozen=True)
class EvalBatch:
  """A batch, and what metrics need beside it.

  Attributes:
    batch: the batch that the model reads.
    stored: the batch with the ids of the store, where `batch` has the unknown
      id for all that training does not read.
    user: int32 [b, m, c], row of the user in the store.
    seen: field -> whether a positive of the moment is in its history, bool [b,
      m].
  """

  batch: types.Batch
  stored: types.Batch
  user: np.ndarray
  seen: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Share:
  """Which rows of each batch a process makes.

  Attributes:
    process: the number of this process, from 0.
    processes: number of processes.
    devices: number of devices of all processes; batches are padded to a
      multiple of it.
  """

  process: int = 0
  processes: int = 1
  devices: int = 1

  def padded(self, size: int) -> int:
    """Returns the rows of all processes, for a batch of `size`."""
    return -(-size // self.devices) * self.devices

  def rows(self, size: int) -> np.ndarray:
    """Returns this process's rows of a batch; those from `size` on pad it."""
    count = self.padded(size) // self.processes
    return self.process * count + np.arange(count, dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class Layout:
  """How batches are laid out, and by whom.

  Attributes:
    share: the rows of each batch that this process makes.
    shortest: least number of slots for the history of a row.
    with_rows: whether `History.row` is filled.
    with_times: fill `History.time` and `Batch.now`.
  """

  share: Share = Share()
  shortest: int = 1
  with_rows: bool = False
  with_times: bool = False


class Pipeline:
  """Assembles the batches of one split."""

  def __init__(
    self,
    store: history_store.HistoryStore,
    moments: splits.Moments,
    split: str,
    data: options.PipelineOptions,
    seed: int,
    moments_per_window: int = 1,
    layout: Layout = Layout(),
    known: Mapping[str, np.ndarray] | None = None,
  ) -> None:
    """Makes a pipeline.

    Args:
      store: the history store.
      moments: the split's moments.
      split: 'train', 'val' or 'test'; names the random stream.
      data: how rows are made.
      seed: the run's seed; negatives of val and test do not depend on it, so
        that all runs are tested on the same rows.
      moments_per_window: moments that may share a history; above 1 only with
        `data.group_candidates`.
      layout: the part of each batch to make, and its width.
      known: field -> bool [ids], whether training reads an id, as
        `known_ids.of_training`; all others are the unknown id then, in each
        split. None: all are known. With `data.unknown_rate` 0 there is no
        unknown id, and it says nothing.
    """
    if data.history_length < 1:
      raise errors.UsageError(
        f'data.history_length={data.history_length}: expected 1 or more.'
      )
    self._store = store
    self._moments = moments
    self._data = data
    is_training = split == 'train'
    self._seed = seed if is_training else 0
    known = known if known and data.unknown_rate > 0 else {}
    self._unknown = unknown_ids.UnknownIds(
      (*store.fields, *store.context_fields),
      known,
      data.unknown_rate if is_training else 0.0,
      self._seed,
    )
    self._targets = targets_lib.TargetBuilder(
      store, data, split, self._seed, known.get('item')
    )
    self._width = self._targets.width
    self._has_in_batch = is_training and data.in_batch_negatives > 0
    if self._has_in_batch:
      self._targets.add_in_batch(moments, data.in_batch_negatives)
    self._rows_a_moment = 1 if data.group_candidates else self._width
    self._moments_per_window = moments_per_window
    self._layout = layout
    self._histories = cutting.Histories(
      store, layout.with_rows, layout.with_times
    )
    self._windows: windows.Windows | None = None
    if moments_per_window > 1:
      self._windows = windows.group(
        moments, moments_per_window, max_slack=data.history_length
      )
    self._groups: length_groups.LengthGroups | None = None
    if data.max_padding is not None:
      self._groups = length_groups.group(
        self._needed(), data.max_padding, layout.shortest
      )

  def check(self) -> None:
    """Checks what would else be found when a batch is made.

    Raises:
      UsageError: a moment without a possible negative.
    """
    self._targets.check(self._moments)

  @property
  def moments(self) -> splits.Moments:
    return self._moments

  @property
  def num_examples(self) -> int:
    """Rows of an epoch: windows, or single targets if not grouped."""
    if self._windows is not None:
      return len(self._windows)
    return len(self._moments) * self._rows_a_moment

  @property
  def targets_per_row(self) -> int:
    """Targets of a row, real or not."""
    return self._moments_per_window * (self._width // self._rows_a_moment)

  @property
  def targets_per_example(self) -> int | float:
    """Real targets of a row, the mean where windows are not all full."""
    if self._windows is not None:
      return len(self._moments) * self._width / self.num_examples
    return self._width // self._rows_a_moment

  def examples_a_step(self, batch_size: int) -> int:
    """Returns the rows of a training step of `batch_size` moments."""
    return max(1, round(batch_size / self._moments_per_window))

  def steps_an_epoch(self, batch_size: int) -> int | float:
    """Returns the training steps of an epoch, whole with length groups."""
    steps = self.num_examples / self.examples_a_step(batch_size)
    return steps if self._groups is None else math.ceil(steps)

  def train_batch(self, step: int, batch_size: int) -> types.Batch:
    """Returns the batch of global step `step`; every example once an epoch.

    Position p of the endless stream is example p mod n of epoch p div n, so
    every batch is full, and batches cross epoch borders. With `max_padding`
    an epoch is `length_groups`' own; its last batch may not be full.

    Args:
      step: number of the step, from 0 on.
      batch_size: moments, or single targets if not grouped.
    """
    rows = self.examples_a_step(batch_size)
    local = self._layout.share.rows(rows)
    index, epoch, real, length = self._examples(step, rows, local)
    of_batch = None
    if self._has_in_batch:  # Whichever process makes which part.
      every, _, taken, _ = self._examples(step, rows, np.arange(rows))
      row, taken = self._rows_of(every, taken)
      of_batch = self._moments.take(row[taken])
    return self._assemble(index, epoch, real, length, of_batch=of_batch).batch

  def _examples(
    self, step: int, rows: int, local: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Returns example, epoch, whether it is real, of rows; and their length.

    Args:
      step: number of the step, from 0 on.
      rows: rows of the batch of all processes.
      local: int [b], rows of the batch; those from `rows` on pad it.
    """
    real = local < rows
    if self._groups is not None:
      return self._grouped_examples(step, rows, local, real)
    position = step * rows + np.where(real, local, 0)
    size = self.num_examples
    epoch, index = position // size, position % size
    if not self._data.reshuffle:
      index = counter_rng.permute(
        index, size, self._seed * 8 + counter_rng.ORDER, 0
      )
    else:
      for value in np.unique(epoch):
        of_epoch = epoch == value
        index[of_epoch] = counter_rng.permute(
          index[of_epoch], size, self._seed * 8 + counter_rng.ORDER, int(value)
        )
    return index, epoch, real, self._longest

  def _grouped_examples(
    self, step: int, rows: int, local: np.ndarray, real: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Returns `_examples` of a batch of histories of about one length."""
    assert self._groups is not None
    epoch, number = divmod(step, math.ceil(self.num_examples / rows))
    # Without reshuffling all epochs have the order of the first.
    order, seed = epoch * bool(self._data.reshuffle), self._seed * 8
    span = self._groups.places(number, rows, seed + counter_rng.BATCHES, order)
    place = span.start + local
    real = real & (place < span.stop)
    place = np.where(real, place, span.start)
    index = self._groups.shuffled(place, seed + counter_rng.ORDER, order)
    length = self._groups.length_of(span.stop - 1)
    return index, np.full_like(index, epoch), real, length

  def eval_batches(
    self, batch_size: int, drop_last: bool = False
  ) -> Iterator[EvalBatch]:
    """Yields every example exactly once, the last batch padded by weight 0.

    With `max_padding` short histories come first; see `eval_places`.

    Args:
      batch_size: moments, or single targets if not grouped.
      drop_last: whether a last partial batch is left out, as the published code
        does.
    """
    for start in range(0, self.num_examples, batch_size):
      if drop_last and start + batch_size > self.num_examples:
        return
      local = self._layout.share.rows(batch_size)
      index = start + local
      real = (local < batch_size) & (index < self.num_examples)
      index[~real] = 0
      length = self._longest
      if self._groups is not None:
        stop = min(start + batch_size, self.num_examples)
        length = self._groups.length_of(stop - 1)
        index = self._groups.order[np.where(real, index, start)]
      yield self._assemble(
        index, np.zeros_like(index), real, length, with_slices=True
      )

  def eval_places(self, batch_size: int) -> np.ndarray | None:
    """Returns where each example lies in the batches of all processes.

    Places count the rows of `eval_batches`, padding and all, one batch after
    the other. None: every example is at its own number.
    """
    if self._groups is None:
      return None
    batch, row = np.divmod(np.arange(self.num_examples), batch_size)
    places = np.empty(self.num_examples, np.int64)
    places[self._groups.order] = (
      batch * self._layout.share.padded(batch_size) + row
    )
    return places

  @property
  def _longest(self) -> int:
    """Slots of a history that fit all examples."""
    slack = 0 if self._windows is None else self._windows.slack
    return self._data.history_length + slack

  def _needed(self) -> np.ndarray:
    """Slots that the history of each example takes."""
    begin = last = self._moments
    if self._windows is not None:
      begin, last = map(self._moments.take, self._windows.borders())
    owned = last.end - np.asarray(self._store.behaviors.offsets)[last.user]
    seen = self._data.history_length + last.end - begin.end
    return np.repeat(np.minimum(owned, seen), self._rows_a_moment)

  def _assemble(
    self,
    index: np.ndarray,
    epoch: np.ndarray,
    real: np.ndarray,
    length: int,
    with_slices: bool = False,
    of_batch: splits.Moments | None = None,
  ) -> EvalBatch:
    row, real = self._rows_of(index, real)
    shape = row.shape  # [b, m]; what is made for each moment comes flat first.
    moments = self._moments.take(row.ravel() // self._rows_a_moment)
    last = moments.take(np.arange(shape[1] - 1, row.size, shape[1]))
    history, now = self._histories(last, moments, length)
    back = last.end[:, None] - moments.end.reshape(shape)
    end = (length - back).astype(np.int32)
    start = None if self._windows is None else end - self._data.history_length
    ids, label, weight, contrast = jax.tree.map(
      lambda array: array.reshape(*shape, -1),
      self._targets(
        moments,
        row.ravel() // self._rows_a_moment,
        np.repeat(epoch, shape[1]) * bool(self._data.fresh_negatives),
        of_batch,
      ),
    )
    seen: dict[str, np.ndarray] = {}
    if with_slices:
      seen = slices.seen(history, end, start, ids, label)
    if self._rows_a_moment > 1:
      slot = (row % self._rows_a_moment)[..., None]
      ids, label, weight = _take_slot((ids, label, weight), slot)
    context = {
      field: ids.pop(field)[..., 0] for field in self._store.context_fields
    }
    weight = weight * real[..., None].astype(np.float32)
    if contrast is not None:
      contrast = contrast.replace(mask=contrast.mask & real[..., None])
    stored = types.Batch(
      history=history,
      end=end,
      targets=types.Targets(ids, label, weight, contrast),
      context=context,
      start=start,
      now=now,
    )
    batch = self._unknown(stored, unknown_ids.Places(index, epoch, row))
    user = np.broadcast_to(moments.user.reshape(*shape, 1), label.shape)
    return EvalBatch(batch, stored, user, seen)

  def _rows_of(
    self, index: np.ndarray, real: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the split behind examples, and which are real."""
    if self._windows is None:
      return index[:, None], real[:, None]
    row, filled = self._windows.moments(index)
    return row, real[:, None] & filled


def _take_slot(arrays: Any, slot: np.ndarray) -> Any:
  """Keeps one target of each moment: [b, m, c], slot [b, m, 1] -> [b, m, 1]."""
  return jax.tree.map(lambda a: np.take_along_axis(a, slot, axis=-1), arrays)
