"""The thread that makes batches ahead of their use."""

import threading
import time

import pytest

from dare_jax import errors
from dare_jax.data import prefetcher


@pytest.mark.parametrize('start', [0, 17])
def test_prefetcher_keeps_the_order(start):
  with prefetcher.Prefetcher(lambda step: step * 10, start, ahead=3) as ahead:
    got = [ahead.next() for _ in range(50)]
  assert got == [step * 10 for step in range(start, start + 50)]
  assert ahead.wait_s >= 0


def test_prefetcher_works_a_few_ahead_and_no_more():
  made = []
  with prefetcher.Prefetcher(
    lambda step: made.append(step), 0, ahead=2
  ) as ahead:
    ahead.next()
    time.sleep(0.1)
    # One was taken, two wait in the queue, one waits to be put there.
    assert 1 <= len(made) <= 4


def test_prefetcher_raises_what_the_thread_raised_in_its_place():
  def make(step):
    if step == 2:
      raise errors.UsageError('no negative')
    return step

  with prefetcher.Prefetcher(make, 0, ahead=8) as ahead:
    assert [ahead.next(), ahead.next()] == [0, 1]
    for _ in range(2):  # A second call raises too: it must not wait for ever.
      with pytest.raises(errors.UsageError, match='no negative'):
        ahead.next()


@pytest.mark.timeout(20)
def test_prefetcher_closes_with_a_full_queue():
  before = threading.active_count()
  ahead = prefetcher.Prefetcher(lambda step: step, 0, ahead=1)
  ahead.next()
  ahead.close()
  ahead.close()  # Twice does no harm.
  assert threading.active_count() == before


def test_prefetcher_measures_the_wait():
  def make(step):
    time.sleep(0.05)
    return step

  with prefetcher.Prefetcher(make, 0, ahead=1) as ahead:
    ahead.next()
    assert ahead.wait_s > 0.01
