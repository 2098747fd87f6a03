"""Sampled negatives: popular items, seeded, none that gives itself away."""

from __future__ import annotations

import numpy as np

from dare_jax import errors
from dare_jax.data import counter_rng
from dare_jax.data import history_store

EXCLUDE = ('user_log', 'positive_only', 'none')
_MAX_ROUNDS = 200


class NegativeSampler:
  """Draws items in proportion to how often they occur in the whole log.

  The published rule rejects an item that occurs anywhere in the user's log,
  past or future (`user_log`). That makes "the target is in the history" a
  giveaway, hence also `positive_only` and `none`; results are reported by
  slice. A draw depends on (stream, example, slot, round) alone.
  """

  def __init__(
    self, store: history_store.HistoryStore, num_negatives: int, exclude: str
  ) -> None:
    if exclude not in EXCLUDE:
      raise errors.UsageError(
        f'data.exclude={exclude!r}: expected one of {", ".join(EXCLUDE)}.'
      )
    self._store = store
    self._num = num_negatives
    self._exclude = exclude

  def sample(
    self,
    stream: tuple[int, ...],
    example: np.ndarray,
    user: np.ndarray,
    positive: np.ndarray,
  ) -> np.ndarray:
    """Returns the rows of behaviors drawn, int64 [n, num_negatives].

    A row, not an item, because the unknown item stands for many: its category
    is that of the row.

    Args:
      stream: integers that name the stream: seed, split, epoch.
      example: int64 [n], the examples' numbers in their split.
      user: int32 [n], rows of the users in the store.
      positive: int32 [n], item ids of the positives.

    Raises:
      UsageError: a user's log leaves (nearly) no item to draw.
    """
    items = self._store.behaviors.columns['item_id']
    slot = np.arange(self._num)
    shape = (len(example), self._num)
    example, user, positive, slot = (
      np.broadcast_to(array, shape).ravel()
      for array in (example[:, None], user[:, None], positive[:, None], slot)
    )
    drawn = np.zeros(len(example), np.int64)
    pending = np.arange(len(example))
    for turn in range(_MAX_ROUNDS):
      row = counter_rng.below(
        len(items), *stream, example[pending], slot[pending], turn
      )
      drawn[pending] = row
      pending = pending[
        self._rejected(items[row], user[pending], positive[pending])
      ]
      if not len(pending):
        return drawn.reshape(shape)
    weaker = {'user_log': 'positive_only', 'positive_only': 'none'}
    raise errors.UsageError(
      f'no negative found for user {int(user[pending[0]])} in {_MAX_ROUNDS}'
      f' draws: data.exclude={self._exclude} leaves too few of the'
      f' {self._store.vocab_sizes["item"] - 2} items; set'
      f' data.exclude={weaker[self._exclude]}.'
    )

  def _rejected(
    self, item: np.ndarray, user: np.ndarray, positive: np.ndarray
  ) -> np.ndarray:
    if self._exclude == 'none':
      return np.zeros(len(item), bool)
    if self._exclude == 'positive_only':
      return item == positive
    return in_user_log(self._store.behaviors, user, item)


def in_user_log(
  table: history_store.Table, user: np.ndarray, item: np.ndarray
) -> np.ndarray:
  """Returns bool [n]: does `item` occur anywhere in the log of `user`?

  A binary search in each user's sorted items, all pairs at once.
  """
  items = table.columns['sorted_item_id']
  low, stop = table.offsets[user], table.offsets[user + 1]
  high = stop.copy()
  for _ in range(int((stop - low).max(initial=0)).bit_length()):
    middle = (low + high) >> 1
    inside = middle < high
    value = items[np.where(inside, middle, 0)]
    less = inside & (value < item)
    low = np.where(less, middle + 1, low)
    high = np.where(less, high, np.minimum(high, middle))
  found = low < stop
  return found & (items[np.where(found, low, 0)] == item)
