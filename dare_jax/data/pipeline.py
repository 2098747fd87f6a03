"""Batches as pure functions of (seed, epoch, index), and a thread ahead.

Every example is a window: (user, end position, targets), or several of these
that share their user's history. Histories are cut out of the store when a batch
is assembled, so nothing is ever stored padded.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from dare_jax import errors
from dare_jax import types
from dare_jax.data import counter_rng
from dare_jax.data import history_store
from dare_jax.data import id_map
from dare_jax.data import length_buckets
from dare_jax.data import negatives
from dare_jax.data import splits
from dare_jax.data import windows

SPLITS = ('train', 'val', 'test')
# Names of independent random streams.
_NEGATIVES, _ORDER, _UNKNOWN, _BATCHES = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class EvalBatch:
  """A batch and what metrics group by, of each target: [b, m, c].

  Attributes:
    batch: the batch.
    moment: int64, its number in the split; single rows of one share it.
    user: int32.
    category: int32.
  """

  batch: types.Batch
  moment: np.ndarray
  user: np.ndarray
  category: np.ndarray


@dataclasses.dataclass(frozen=True)
class Share:
  """Which rows of each batch a process makes.

  Attributes:
    process: its number.
    processes: how many there are.
    devices: of all processes; batches are padded to a multiple of it.
  """

  process: int = 0
  processes: int = 1
  devices: int = 1

  def padded(self, size: int) -> int:
    """Returns the rows of all processes, for a batch of `size`."""
    return -(-size // self.devices) * self.devices

  def rows(self, size: int) -> np.ndarray:
    """Returns this process's rows of a batch; those from `size` on pad it."""
    own = self.padded(size) // self.processes
    return self.process * own + np.arange(own, dtype=np.int64)


class Pipeline:
  """Assembles the batches of one split."""

  def __init__(
    self,
    store: history_store.HistoryStore,
    moments: splits.Moments,
    split: str,
    data: Any,
    seed: int,
    moments_per_window: int = 1,
    with_rows: bool = False,
    share: Share = Share(),
    shortest: int = 1,
  ) -> None:
    """Makes a pipeline.

    Args:
      store: the history store.
      moments: the split's moments.
      split: 'train', 'val' or 'test'; names the random stream.
      data: the config's data section.
      seed: the run's seed; negatives of val and test do not depend on it, so
        that all runs are tested on the same rows.
      moments_per_window: moments that may share a history; above 1 only with
        `data.group_candidates`.
      with_rows: fill `History.row`.
      share: which rows of each batch to make.
      shortest: slots that the history of a row has at least.
    """
    if data.history_length < 1:
      raise errors.UsageError(
        f'data.history_length={data.history_length}: expected 1 or more.'
      )
    if data.num_negatives < (1 if store.impressions is None else 0):
      raise errors.UsageError(
        f'data.num_negatives={data.num_negatives}: expected 1 or more.'
      )
    self._store = store
    self._moments = moments
    self._split = SPLITS.index(split)
    self._data = data
    self._seed = seed if split == 'train' else 0
    self._sampler = negatives.NegativeSampler(
      store,
      data.num_negatives,
      data.exclude,
      splits.known_before(store, data, split),
    )
    self._width = 1 + data.num_negatives
    self._rows_a_moment = 1 if data.group_candidates else self._width
    self._moments_per_window = moments_per_window
    self._with_rows = with_rows
    self._share = share
    self._windows: windows.Windows | None = None
    if moments_per_window > 1:
      self._windows = windows.group(
        moments, moments_per_window, max_slack=data.history_length
      )
    self._buckets: length_buckets.Buckets | None = None
    if data.max_padding is not None:
      self._buckets = length_buckets.group(
        self._needed(), data.max_padding, shortest
      )

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
  def targets_per_example(self) -> float:
    """Real targets of a row, the mean where windows are not all full."""
    if self._windows is not None:
      return len(self._moments) * self._width / self.num_examples
    return self._width // self._rows_a_moment

  def examples_a_step(self, batch_size: int) -> int:
    """Returns the rows of a training step of `batch_size` moments."""
    return max(1, round(batch_size / self._moments_per_window))

  def steps_an_epoch(self, batch_size: int) -> float:
    """Returns the training steps of an epoch; a whole number with buckets."""
    steps = self.num_examples / self.examples_a_step(batch_size)
    return steps if self._buckets is None else math.ceil(steps)

  def train_batch(self, step: int, batch_size: int) -> types.Batch:
    """Returns the batch of global step `step`; every example once an epoch.

    Position p of the endless stream is example p mod n of epoch p div n, so
    every batch is full, and batches cross epoch borders. With `max_padding`
    an epoch is `length_buckets`' own; its last batch may not be full.

    Args:
      step: number of the step, from 0 on.
      batch_size: moments, or single targets if not grouped.
    """
    rows = self.examples_a_step(batch_size)
    own = self._share.rows(rows)
    real = own < rows
    if self._buckets is not None:
      return self._bucket_batch(step, rows, own, real)
    position = step * rows + np.where(real, own, 0)
    size = self.num_examples
    epoch, index = position // size, position % size
    if not self._data.reshuffle:
      index = counter_rng.permute(index, size, self._seed * 8 + _ORDER, 0)
    else:
      for value in np.unique(epoch):
        own = epoch == value
        index[own] = counter_rng.permute(
          index[own], size, self._seed * 8 + _ORDER, int(value)
        )
    return self._assemble(index, epoch, real, self._longest).batch

  def _bucket_batch(
    self, step: int, rows: int, own: np.ndarray, real: np.ndarray
  ) -> types.Batch:
    """A batch of an epoch whose batches each have about one length."""
    assert self._buckets is not None
    epoch, number = divmod(step, math.ceil(self.num_examples / rows))
    turn, seed = epoch * bool(self._data.reshuffle), self._seed * 8
    drawn = self._buckets.drawn(number, rows, seed + _BATCHES, turn)
    place = drawn.start + own
    real = real & (place < drawn.stop)
    place = np.where(real, place, drawn.start)
    index = self._buckets.shuffled(place, seed + _ORDER, turn)
    length = self._buckets.length_of(drawn.stop - 1)
    epochs = np.full_like(index, epoch)
    return self._assemble(index, epochs, real, length).batch

  def eval_batches(
    self, batch_size: int, drop_last: bool = False
  ) -> Iterator[EvalBatch]:
    """Yields every example exactly once, the last batch padded by weight 0.

    With `max_padding` short histories come first; see `eval_places`.

    Args:
      batch_size: moments, or single targets if not grouped.
      drop_last: leave a last partial batch out, as the published code does.
    """
    for start in range(0, self.num_examples, batch_size):
      if drop_last and start + batch_size > self.num_examples:
        return
      own = self._share.rows(batch_size)
      index = start + own
      real = (own < batch_size) & (index < self.num_examples)
      index[~real] = 0
      length = self._longest
      if self._buckets is not None:
        stop = min(start + batch_size, self.num_examples)
        length = self._buckets.length_of(stop - 1)
        index = self._buckets.order[np.where(real, index, start)]
      yield self._assemble(index, np.zeros_like(index), real, length)

  def eval_places(self, batch_size: int) -> np.ndarray | None:
    """Returns where each example lies in the batches of all processes.

    Places count the rows of `eval_batches`, padding and all, one batch after
    the other. None: every example is at its own number.
    """
    if self._buckets is None:
      return None
    turn, row = np.divmod(np.arange(self.num_examples), batch_size)
    places = np.empty(self.num_examples, np.int64)
    places[self._buckets.order] = turn * self._share.padded(batch_size) + row
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
  ) -> EvalBatch:
    if self._windows is None:
      row, real = index[:, None], real[:, None]
    else:
      row, filled = self._windows.moments(index)
      real = real[:, None] & filled
    shape = row.shape  # [b, m]; what is made for each moment comes flat first.
    row, epoch_of_row = row.ravel(), np.repeat(epoch, shape[1])
    number = row // self._rows_a_moment
    moments = self._moments.take(number)
    last = moments.take(np.arange(shape[1] - 1, len(row), shape[1]))
    ids, mask, store_row = self._history(last, length)
    drawn = epoch_of_row * bool(self._data.fresh_negatives)
    if self._store.impressions is None:
      targets, label, weight = self._sampled_targets(moments, row, drawn)
    else:
      targets, label, weight = self._logged_targets(moments)
    if self._rows_a_moment > 1:
      slot = (row % self._rows_a_moment)[:, None]
      targets, label, weight = _take_slot((targets, label, weight), slot)
    context = {
      field: targets.pop(field)[:, 0] for field in self._store.context_fields
    }
    category = targets['category']
    if self._split == 0 and self._data.unknown_rate > 0:
      self._replace_in_history(ids['item'], mask, index, epoch)
      targets['item'] = self._replaced(targets['item'], row, epoch_of_row)
    weight = weight * real.reshape(-1, 1).astype(np.float32)
    number, user = (
      np.broadcast_to(value[:, None], category.shape)
      for value in (number, moments.user)
    )
    targets, label, weight, context, number, user, category = jax.tree.map(
      lambda array: array.reshape(*shape, *array.shape[1:]),
      (targets, label, weight, context, number, user, category),
    )
    back = np.repeat(last.end, shape[1]) - moments.end
    end = (mask.shape[1] - back).astype(np.int32).reshape(shape)
    batch = types.Batch(
      history=types.History(ids=ids, mask=mask, row=store_row),
      end=end,
      targets=types.Targets(ids=targets, label=label, weight=weight),
      context=context,
      start=None if self._windows is None else end - self._data.history_length,
    )
    return EvalBatch(batch, number, user, category)

  def _history(
    self, moments: splits.Moments, length: int
  ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray | None]:
    """The last behaviors before each moment, right-aligned, [b, length]."""
    table = self._store.behaviors
    row = moments.end[:, None] + np.arange(-length, 0)
    mask = row >= table.offsets[moments.user][:, None]
    np.maximum(row, 0, out=row)
    ids = {}
    for field in self._store.fields:
      values = table.columns[f'{field}_id'][row]
      values[~mask] = id_map.PADDING
      ids[field] = values
    if not self._with_rows:
      return ids, mask, None
    return ids, mask, np.where(mask, row + 1, 0).astype(np.int32)

  def _sampled_targets(
    self, moments: splits.Moments, index: np.ndarray, epoch: np.ndarray
  ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """A positive and its sampled negatives: [b, 1 + num_negatives]."""
    columns = self._store.behaviors.columns
    positive = columns['item_id'][moments.target]
    group = index // self._rows_a_moment
    drawn = self._sampler.sample(
      (self._seed * 8 + _NEGATIVES, self._split),
      group + (epoch << 40),
      moments.user,
      positive,
    )
    items = columns['item_id'][drawn]
    targets = {'item': np.concatenate([positive[:, None], items], axis=1)}
    # An item's last values may be of a time that `by_time` must not know.
    by_row = (items == id_map.UNKNOWN) | (self._data.split == 'by_time')
    for field in self._store.fields[1:]:
      own = columns[f'{field}_id'][moments.target][:, None]
      other = self._store.item_values[field][items]
      other[by_row] = columns[f'{field}_id'][drawn[by_row]]
      targets[field] = np.concatenate([own, other], axis=1)
    for field in self._store.context_fields:
      own = columns[f'{field}_id'][moments.target][:, None]
      targets[field] = np.broadcast_to(own, targets['item'].shape)
    label = np.zeros(targets['item'].shape, np.float32)
    label[:, 0] = 1.0
    return targets, label, np.ones_like(label)

  def _logged_targets(
    self, moments: splits.Moments
  ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """The logged impressions of a moment: [b, 1 + num_negatives]."""
    table = self._store.impressions
    assert table is not None
    slot = np.arange(self._width)
    real = slot < moments.count[:, None]
    row = np.where(real, moments.target[:, None] + slot, 0)
    targets = {}
    for field in (*self._store.fields, *self._store.context_fields):
      values = table.columns[f'{field}_id'][row]
      values[~real] = id_map.PADDING
      targets[field] = values
    label = table.columns['label'][row] * real
    return targets, label.astype(np.float32), real.astype(np.float32)

  def _replace_in_history(
    self,
    history: np.ndarray,
    mask: np.ndarray,
    index: np.ndarray,
    epoch: np.ndarray,
  ) -> None:
    """Maps a small random share of item ids to the unknown id, in place."""
    stream = (self._seed * 8 + _UNKNOWN, epoch, index)
    length = history.shape[1]
    count = self._data.unknown_rate * length + counter_rng.uniform(*stream)
    count = np.floor(count).astype(int)
    for turn in range(int(count.max(initial=0))):
      row = np.flatnonzero(count > turn)
      slot = counter_rng.below(length, stream[0], epoch[row], index[row], turn)
      hit = mask[row, slot]
      history[row[hit], slot[hit]] = id_map.UNKNOWN

  def _replaced(
    self, item: np.ndarray, row: np.ndarray, epoch: np.ndarray
  ) -> np.ndarray:
    """Returns targets [n, c], the same share of them made unknown."""
    seed = self._seed * 8 + _UNKNOWN
    slots = -1 - np.arange(item.shape[1])
    draw = counter_rng.uniform(seed, epoch[:, None], row[:, None], slots)
    unknown = (draw < self._data.unknown_rate) & (item > 0)
    return np.where(unknown, id_map.UNKNOWN, item)


def _take_slot(arrays: Any, slot: np.ndarray) -> Any:
  """Keeps one target of each row: [b, c] arrays and slot [b, 1] -> [b, 1]."""
  return jax.tree.map(lambda a: np.take_along_axis(a, slot, axis=1), arrays)
