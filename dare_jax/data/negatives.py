"""Sampled negatives: popular items, seeded, none that gives itself away."""

from __future__ import annotations

import functools

import numpy as np

from dare_jax import errors
from dare_jax.data import counter_rng
from dare_jax.store import history_store
from dare_jax.store import ragged
from dare_jax.store import store_writer

EXCLUDE = ('user_log', 'positive_only', 'none')
_MAX_ROUNDS = 200


class NegativeSampler:
  """Draws items in proportion to how often they occur in the log.

  The published rule rejects an item that occurs anywhere in the user's log,
  past or future (`user_log`). That makes "the target is in the history" a
  giveaway, hence also `positive_only` and `none`; results are reported by
  slice. A draw depends on (stream, example, slot, round) alone.

  With `before`, the log is its rows before that time, both for what is drawn
  and for what is rejected: else an item of the future would be known by its
  label, which is always 0, and a user's by never being a negative. With
  `known`, other items are rejected: training would read them as the unknown
  item, and learn that what is new is never wanted.
  """

  def __init__(
    self,
    store: history_store.HistoryStore,
    num_negatives: int,
    exclude: str,
    before: int | None = None,
    known: np.ndarray | None = None,
  ) -> None:
    """Makes a sampler.

    Args:
      store: the history store; with `before`, in time order.
      num_negatives: number of negatives drawn for each positive.
      exclude: one of `EXCLUDE`: the items that are never negatives.
      before: a time stamp: items of older events alone are drawn; None: items
        of the whole log.
      known: bool [items], whether an item may be a negative; None: each may.

    Raises:
      UsageError: unknown rule.
    """
    if exclude not in EXCLUDE:
      raise errors.UsageError(
        f'data.exclude={exclude!r}: expected one of {", ".join(EXCLUDE)}.'
      )
    self._store = store
    self._num = num_negatives
    self._exclude = exclude
    self._before = before
    self._known = known
    table = store.behaviors
    # Rows of each user from `before` on; they come last.
    late = np.zeros(0, np.int64)
    if before is not None:
      late = np.flatnonzero(table.columns['timestamp'] >= before)
    self._num_rows = len(table) - len(late)
    self._late_offsets = np.searchsorted(late, table.offsets)
    self._early_offsets = table.offsets - self._late_offsets
    self._late_items = store_writer.sort_in_users(
      table.columns['item_id'][late], self._late_offsets
    )

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
      UsageError: a user's log leaves no item to draw.
    """
    items = self._store.behaviors.columns['item_id']
    slot = np.arange(self._num)
    shape = (len(example), self._num)
    example, user, positive, slot = (
      np.broadcast_to(array, shape).ravel()
      for array in (example[:, None], user[:, None], positive[:, None], slot)
    )
    sampled = np.zeros(len(example), np.int64)
    pending = np.arange(len(example))
    for attempt in range(_MAX_ROUNDS):
      row = self._row(
        counter_rng.below(
          self._num_rows, *stream, example[pending], slot[pending], attempt
        )
      )
      sampled[pending] = row
      pending = pending[
        self.rejected(items[row], user[pending], positive[pending])
      ]
      if not len(pending):
        break
    # Few items are left to these users, and random draws have missed them.
    if len(pending):
      sampled[pending] = self._sampled_from_left(
        user[pending],
        positive[pending],
        counter_rng.uniform(
          *stream, example[pending], slot[pending], _MAX_ROUNDS
        ),
      )
    return sampled.reshape(shape)

  def check(self, split: str, user: np.ndarray, positive: np.ndarray) -> None:
    """Checks that there is a negative for each moment of a split.

    Args:
      split: 'train', 'val' or 'test'.
      user: int32 [n], rows of the users in the store.
      positive: int32 [n], item ids of the positives.

    Raises:
      UsageError: there is none for some user; names one as the log does.
    """
    if self._exclude == 'user_log':
      users = np.unique(user)
      distinct = _distinct_items(self._store.behaviors)[users]
      for number in users[distinct >= len(self._choices)].tolist():
        if not len(self._left(number, 0)):
          raise self._none_left(number, f' of the {split} split')
    elif self._exclude == 'positive_only' and len(self._choices) == 1:
      alone = np.flatnonzero(positive == self._choices[0])
      if len(alone):
        raise self._none_left(int(user[alone[0]]), f' of the {split} split')

  @functools.cached_property
  def _choices(self) -> np.ndarray:
    """The items that may be negatives of somebody, ascending."""
    items = self._store.behaviors.columns['item_id']
    if self._before is not None:
      items = items[self._row(np.arange(self._num_rows))]
    items = np.flatnonzero(np.bincount(items))
    return items if self._known is None else items[self._known[items]]

  @functools.cached_property
  def _rows_by_item(self) -> tuple[np.ndarray, np.ndarray]:
    """Item and row of the log that is sampled from, in the order of items."""
    rows = self._row(np.arange(self._num_rows))
    items = self._store.behaviors.columns['item_id'][rows]
    order = np.argsort(items, kind='stable')
    return items[order], rows[order]

  def _left(self, user: int, positive: int) -> np.ndarray:
    """Returns the items that may be drawn for a moment."""
    items = self._choices
    pair = np.full(len(items), user), np.full(len(items), positive)
    return items[~self.rejected(items, *pair)]

  def _sampled_from_left(
    self, user: np.ndarray, positive: np.ndarray, share: np.ndarray
  ) -> np.ndarray:
    """Returns sampled rows, int64 [n], by a list of what may be sampled.

    Args:
      user: int32 [n], rows of the users in the store.
      positive: int32 [n], item ids of the positives.
      share: float64 [n] in [0, 1), which of the user's rows to take.
    """
    items, rows = self._rows_by_item
    sampled = np.zeros(len(user), np.int64)
    pairs = np.stack([user, positive], axis=1)
    for number, item in np.unique(pairs, axis=0).tolist():
      left = self._left(number, item)
      if not len(left):
        raise self._none_left(number)
      asked = np.flatnonzero((user == number) & (positive == item))
      first = np.searchsorted(items, left)
      stop = np.cumsum(np.searchsorted(items, left, side='right') - first)
      place = np.floor(share[asked] * stop[-1]).astype(np.int64)
      which = np.searchsorted(stop, place, side='right')
      sampled[asked] = rows[first[which] + place - np.append(0, stop)[which]]
    return sampled

  def _none_left(self, user: int, split: str = '') -> errors.UsageError:
    of = f'{len(self._choices)} items'
    if self._before is not None:
      of = f'{of} from before {self._before}'
    if self._known is not None:
      of = f'{of} that training knows'
    weaker = {'user_log': 'positive_only', 'positive_only': 'none'}
    raw = self._store.raw_ids('user')[user]
    return errors.UsageError(
      f'no negative for user {raw!r}{split}: data.exclude={self._exclude}'
      f' leaves none of the {of}; set data.exclude={weaker[self._exclude]}.'
    )

  def _row(self, number: np.ndarray) -> np.ndarray:
    """Returns the table rows behind rows of the log that is sampled from."""
    if self._before is None:
      return number
    user = np.searchsorted(self._early_offsets, number, side='right') - 1
    return number + self._late_offsets[user]

  def rejected(
    self, item: np.ndarray, user: np.ndarray, positive: np.ndarray
  ) -> np.ndarray:
    """Returns bool [n], which of the items may not be negatives.

    Args:
      item: int32 [n], item ids.
      user: int32 [n], rows of the users in the store.
      positive: int32 [n], item ids of the positives.
    """
    rejected = self._excluded(item, user, positive)
    return rejected if self._known is None else rejected | ~self._known[item]

  def item_counts(self, size: int) -> np.ndarray:
    """Returns how often each item is in the log that is sampled from."""
    rows = self._row(np.arange(self._num_rows))
    items = self._store.behaviors.columns['item_id'][rows]
    return np.bincount(items, minlength=size)

  def _excluded(
    self, item: np.ndarray, user: np.ndarray, positive: np.ndarray
  ) -> np.ndarray:
    if self._exclude == 'none':
      return np.zeros(len(item), bool)
    if self._exclude == 'positive_only':
      return item == positive
    table = self._store.behaviors
    taken = in_user_log(table, user, item)
    if self._before is None:
      return taken
    found = np.flatnonzero(taken)
    pairs = user[found], item[found]
    ever = _times(table.columns['sorted_item_id'], table.offsets, *pairs)
    taken[found] = ever > _times(self._late_items, self._late_offsets, *pairs)
    return taken


def in_user_log(
  table: history_store.Table, user: np.ndarray, item: np.ndarray
) -> np.ndarray:
  """Returns bool [n]: does `item` occur anywhere in the log of `user`?

  A binary search in each user's sorted items, all pairs at once.
  """
  items = table.columns['sorted_item_id']
  row = ragged.lower_bound(items, table.offsets, user, item)
  found = row < table.offsets[user + 1]
  return found & (items[np.where(found, row, 0)] == item)


def _distinct_items(table: history_store.Table) -> np.ndarray:
  """Returns how many items the log of each user has: int64 [users]."""
  items, offsets = table.columns['sorted_item_id'], table.offsets
  new = np.ones(len(items), bool)
  np.not_equal(items[1:], items[:-1], out=new[1:])
  counts = np.zeros(len(offsets) - 1, np.int64)
  some = np.flatnonzero(np.diff(offsets))
  new[offsets[some]] = True
  counts[some] = np.add.reduceat(new, offsets[some], dtype=np.int64)
  return counts


def _times(
  items: np.ndarray, offsets: np.ndarray, user: np.ndarray, item: np.ndarray
) -> np.ndarray:
  """Returns how often each item occurs among its user's sorted items."""
  first = ragged.lower_bound(items, offsets, user, item)
  return ragged.lower_bound(items, offsets, user, item + 1) - first
