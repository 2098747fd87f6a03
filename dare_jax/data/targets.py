"""The targets of moments: positives with sampled negatives, or impressions."""

from __future__ import annotations

import numpy as np

from dare_jax import errors
from dare_jax import types
from dare_jax.data import counter_rng
from dare_jax.data import in_batch
from dare_jax.data import negatives
from dare_jax.data import options
from dare_jax.data import splits
from dare_jax.logs import id_map
from dare_jax.store import history_store

# ids by field, context fields among them, label and weight: each [n, c]; and
# which candidates are of the batch, None without any.
Targets = tuple[
  dict[str, np.ndarray], np.ndarray, np.ndarray, types.Contrast | None
]


class TargetBuilder:
  """Builds the targets of a split's moments, `width` of each moment."""

  def __init__(
    self,
    store: history_store.HistoryStore,
    data: options.PipelineOptions,
    split: str,
    seed: int,
    known: np.ndarray | None = None,
  ) -> None:
    """Makes a builder.

    Args:
      store: the history store.
      data: how rows are made.
      split: 'train', 'val' or 'test'.
      seed: seed of the negatives.
      known: bool [items], whether training reads an item; in training no
        other is a negative. None: all are known.

    Raises:
      UsageError: too few negatives, or an unknown rule for them.
    """
    if data.num_negatives < (1 if store.impressions is None else 0):
      raise errors.UsageError(
        f'data.num_negatives={data.num_negatives}: expected 1 or more.'
      )
    self.width = 1 + data.num_negatives
    self._store = store
    self._seed = seed
    self._in_batch: in_batch.InBatchNegatives | None = None
    self._stream = (seed * 8 + counter_rng.NEGATIVES, splits.NAMES.index(split))
    # An item's last values may be of a time that `by_time` must not know.
    self._values_by_row = data.split == 'by_time'
    self._sampler = negatives.NegativeSampler(
      store,
      data.num_negatives,
      data.exclude,
      splits.known_before(store, data, split),
      known if split == 'train' else None,
    )

  def add_in_batch(self, moments: splits.Moments, count: int) -> None:
    """Adds candidates from the batch to those of each moment, from now on.

    Args:
      moments: the moments of the training split.
      count: number of candidates added to each moment.

    Raises:
      UsageError: the log has labels: its moments are no positives.
    """
    if self._store.impressions is not None:
      raise errors.UsageError(
        f'data.in_batch_negatives={count} is for sampled negatives, and this'
        ' log has labels (data.columns.label); set it to 0.'
      )
    self._in_batch = in_batch.InBatchNegatives(
      self._store,
      moments,
      self._sampler,
      count,
      self._seed * 8 + counter_rng.IN_BATCH,
    )

  def check(self, moments: splits.Moments) -> None:
    """Raises UsageError if there is no negative for some moment."""
    if self._store.impressions is None:
      positive = self._store.behaviors.columns['item_id'][moments.target]
      split = splits.NAMES[self._stream[1]]
      self._sampler.check(split, moments.user, positive)

  def __call__(
    self,
    moments: splits.Moments,
    number: np.ndarray,
    epoch: np.ndarray,
    batch: splits.Moments | None = None,
  ) -> Targets:
    """Returns ids by field, labels and weights, each [n, c], and `Contrast`.

    Args:
      moments: n of them.
      number: int64 [n], of the moments in their split.
      epoch: int64 [n], whose negatives to sample.
      batch: the moments of the whole batch, for in-batch negatives; None: there
        are none.
    """
    if self._store.impressions is not None:
      return self._logged(moments)
    example = number + (epoch << 40)
    found = self._sampled(moments, example)
    if self._in_batch is None or batch is None:
      return found
    return self._widened(found, *self._in_batch(batch, moments, example))

  def _widened(
    self, found: Targets, rows: np.ndarray, of_batch: types.Contrast
  ) -> Targets:
    """Returns targets with candidates of the batch behind them."""
    ids, label, weight, _ = found
    columns = self._store.behaviors.columns
    wide = {}
    for field, values in ids.items():
      if field in self._store.context_fields:
        more = np.broadcast_to(values[:, :1], rows.shape)
      else:
        more = columns[f'{field}_id'][rows] * of_batch.mask
      wide[field] = np.concatenate([values, more], axis=1)
    append = lambda own, more: np.concatenate([own, more], axis=1)
    zeros = np.zeros(rows.shape, np.float32)
    contrast = types.Contrast(
      append(np.zeros(label.shape, bool), of_batch.mask),
      append(np.zeros_like(label), of_batch.log_ratio),
    )
    return wide, append(label, zeros), append(weight, zeros), contrast

  def _sampled(self, moments: splits.Moments, example: np.ndarray) -> Targets:
    """A positive and its sampled negatives."""
    columns = self._store.behaviors.columns
    positive = columns['item_id'][moments.target]
    rows = self._sampler.sample(self._stream, example, moments.user, positive)
    items = columns['item_id'][rows]
    ids = {'item': np.concatenate([positive[:, None], items], axis=1)}
    by_row = (items == id_map.UNKNOWN) | self._values_by_row
    for field in self._store.fields[1:]:
      first = columns[f'{field}_id'][moments.target][:, None]
      other = self._store.item_values[field][items]
      other[by_row] = columns[f'{field}_id'][rows[by_row]]
      ids[field] = np.concatenate([first, other], axis=1)
    for field in self._store.context_fields:
      value = columns[f'{field}_id'][moments.target][:, None]
      ids[field] = np.broadcast_to(value, ids['item'].shape)
    label = np.zeros(ids['item'].shape, np.float32)
    label[:, 0] = 1.0
    return ids, label, np.ones_like(label), None

  def _logged(self, moments: splits.Moments) -> Targets:
    """The logged impressions of a moment."""
    table = self._store.impressions
    assert table is not None
    slot = np.arange(self.width)
    real = slot < moments.count[:, None]
    row = np.where(real, moments.target[:, None] + slot, 0)
    ids = {}
    for field in (*self._store.fields, *self._store.context_fields):
      values = table.columns[f'{field}_id'][row]
      values[~real] = id_map.PADDING
      ids[field] = values
    label = table.columns['label'][row] * real
    return ids, label.astype(np.float32), real.astype(np.float32), None
