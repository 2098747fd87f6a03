"""Further negatives of a moment: the positives of other moments of its batch.

Their rows are read by the batch anyway. Only the loss over the candidates of a
moment sees them: their weight is 0.
"""

from __future__ import annotations

import numpy as np

from dare_jax import types
from dare_jax.data import counter_rng
from dare_jax.data import negatives
from dare_jax.data import splits
from dare_jax.logs import id_map
from dare_jax.store import history_store

_ROUNDS = 8


class InBatchNegatives:
  """Draws such negatives, each with the log ratio that corrects its frequency.

  A batch gives item j with probability P(j), its share of the training
  positives; the sampler with Q(j), its share of the log that negatives are
  sampled from. With log(P(j) / Q(j)) subtracted from its logit, a candidate of
  the batch counts in a softmax as one more sampled negative does: the logQ
  correction (Bengio and Senecal, 2008; Yi et al., 2019), towards the
  distribution that validation has, too.
  """

  def __init__(
    self,
    store: history_store.HistoryStore,
    moments: splits.Moments,
    sampler: negatives.NegativeSampler,
    count: int,
    stream: int,
  ) -> None:
    """Counts the items.

    Args:
      store: the history store.
      moments: the moments of the training split.
      sampler: the sampler of the other negatives; what it rejects is no
        negative here either.
      count: number of candidates drawn for each moment.
      stream: number that names the random stream.
    """
    self._columns = store.behaviors.columns
    self._sampler = sampler
    self._count = count
    self._stream = stream
    size = store.vocab_sizes['item']
    items = self._columns['item_id']
    drawn = np.bincount(items[moments.target], minlength=size)
    sampled = sampler.item_counts(size)
    # Whatever can be drawn is in the log; other items are never asked for.
    share = np.maximum(drawn, 1) / max(drawn.sum(), 1)
    base = np.maximum(sampled, 1) / max(sampled.sum(), 1)
    self._log_ratio = np.log(share / base).astype(np.float32)

  def __call__(
    self, batch: splits.Moments, own: splits.Moments, example: np.ndarray
  ) -> tuple[np.ndarray, types.Contrast]:
    """Returns the rows of the behaviors drawn, int64 [n, count], and the rest.

    A candidate that is a positive of the moment's user in the batch, or that
    the sampler rejects, is drawn anew, and left out (`mask` False, row 0) where
    chance brings no other.

    Args:
      batch: the moments of the whole batch, those of all processes.
      own: the n moments of this process.
      example: int64 [n], numbers of the moments, which name their random draws.
    """
    shape = (len(example), self._count)
    user, positive, example, slot = (
      np.broadcast_to(values, shape).ravel()
      for values in (
        own.user[:, None],
        self._columns['item_id'][own.target][:, None],
        example[:, None],
        np.arange(self._count),
      )
    )
    row = np.zeros(len(user), np.int64)
    pending = np.arange(len(user))
    for attempt in range(_ROUNDS):
      place = counter_rng.below(
        len(batch), self._stream, example[pending], slot[pending], attempt
      )
      row[pending] = batch.target[place]
      rejected = self._rejected(
        row[pending], user[pending], positive[pending], batch
      )
      pending = pending[rejected]
    row[pending] = 0
    mask = np.ones(len(user), bool)
    mask[pending] = False
    log_ratio = self._log_ratio[self._columns['item_id'][row]] * mask
    return row.reshape(shape), types.Contrast(
      mask.reshape(shape), log_ratio.reshape(shape)
    )

  def _rejected(
    self,
    row: np.ndarray,
    user: np.ndarray,
    positive: np.ndarray,
    batch: splits.Moments,
  ) -> np.ndarray:
    items = self._columns['item_id']
    item = items[row]
    size = len(self._log_ratio)
    wanted = batch.user * np.int64(size) + items[batch.target]
    known = np.isin(user * np.int64(size) + item, wanted)
    # The unknown item stands for many, the positive perhaps among them.
    unknown = item == id_map.UNKNOWN
    rejected = self._sampler.rejected(item, user, positive)
    return known | unknown | rejected | (item == positive)
