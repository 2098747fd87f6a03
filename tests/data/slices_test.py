"""Whether a moment's positive is in its history, against Python sets."""

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax import types
from dare_jax.data import pipeline
from dare_jax.data import slices
from dare_jax.data import splits
from tests.data import stores


@hypothesis.given(st.integers(0, 2**32 - 1), st.booleans())
def test_seen_is_membership_in_what_a_moment_sees(seed, is_shared):
  rng = np.random.default_rng(seed)
  b, m, c, length = rng.integers(1, 6, 4)
  history = {field: rng.integers(1, 9, (b, length)) for field in slices.FIELDS}
  targets = {field: rng.integers(1, 9, (b, m, c)) for field in slices.FIELDS}
  mask = rng.random((b, length)) < 0.7
  label = rng.random((b, m, c)) < 0.5
  end = rng.integers(0, length + 1, (b, m))
  start = end - rng.integers(0, length + 1, (b, m)) if is_shared else None
  found = slices.seen(
    types.History(ids=history, mask=mask), end, start, targets, label
  )
  assert set(found) == set(slices.FIELDS)
  for field, flags in found.items():
    for row, moment in np.ndindex(b, m):
      first = max(0, start[row, moment]) if is_shared else 0
      seen = {
        int(history[field][row, place])
        for place in range(first, end[row, moment])
        if mask[row, place]
      }
      positives = targets[field][row, moment][label[row, moment]]
      assert flags[row, moment] == bool(seen & set(positives.tolist()))


def _pipeline(is_grouped, known=None):
  store = stores.build(
    stores.random_rows(seed=3, users=9, low=12, high=30, items=30)
  )
  data = stores.data_options(
    min_events=0, min_history=3, history_length=9, group_candidates=is_grouped
  )
  moments = splits.make_splits(store, data)['test']
  return pipeline.Pipeline(store, moments, 'test', data, 1, known=known)


def test_single_rows_have_the_slices_of_their_moment():
  grouped, single = (
    next(iter(made.eval_batches(made.num_examples)))
    for made in (_pipeline(True), _pipeline(False))
  )
  for field in slices.FIELDS:
    expected = np.repeat(grouped.seen[field], 3, axis=0)
    np.testing.assert_array_equal(single.seen[field], expected)
  assert 0 < grouped.seen['item'].mean() < 1


@pytest.mark.parametrize('is_grouped', [True, False])
def test_two_unknown_items_are_two_items(is_grouped):
  """A model that knows none reads the same everywhere; the log does not."""
  plain = _pipeline(is_grouped)
  known = np.zeros(32, bool)
  known[:2] = True
  blind = _pipeline(is_grouped, {'item': known})
  for one, other in zip(
    plain.eval_batches(20), blind.eval_batches(20), strict=True
  ):
    assert set(np.unique(other.batch.targets.ids['item'])) == {1}
    for field, flags in one.seen.items():
      np.testing.assert_array_equal(other.seen[field], flags)
