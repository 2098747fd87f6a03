import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from dare_jax.data import counter_rng

_WORD = 2**64


def _chi_square_bound(degrees: int) -> float:
  """Six standard deviations above the mean of chi-square: odds of 1e-6."""
  return degrees + 6 * np.sqrt(2 * degrees)


def _chi_square(counts: np.ndarray) -> float:
  expected = counts.sum() / len(counts)
  return float(((counts - expected) ** 2 / expected).sum())


def _slow_bits(*counters: int) -> int:
  """SplitMix64's finaliser on Python integers, once a counter."""
  state = 0
  for counter in counters:
    state = ((state ^ (counter % _WORD)) + 0x9E3779B97F4A7C15) % _WORD
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % _WORD
    state ^= state >> 31
  return state


def _slow_permute(index: int, size: int, seed: int, epoch: int) -> int:
  half = 1
  while 4**half < size:
    half += 1
  while True:
    left, right = divmod(index, 2**half)
    for turn in range(4):
      mixed = _slow_bits(seed, epoch, turn, right) % 2**half
      left, right = right, left ^ mixed
    index = left * 2**half + right
    if index < size:
      return index


@hypothesis.given(
  st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)
)
def test_bits_follow_the_definition(counters):
  assert int(counter_rng.bits(*counters)) == _slow_bits(*counters)


def test_bits_broadcast():
  rows, columns = np.arange(3)[:, None], np.arange(4)
  grid = counter_rng.bits(7, rows, columns)
  assert grid.shape == (3, 4)
  assert int(grid[2, 1]) == _slow_bits(7, 2, 1)
  assert len(np.unique(grid)) == 12


def test_splitmix_golden():
  # With state 0 the first SplitMix64 output is a published constant (the first
  # value of `splitmix64` seeded with 0 in Vigna's reference code).
  assert int(counter_rng.bits(0)) == 0xE220A8397B1DCDAF


def test_uniform_is_uniform():
  draws = counter_rng.uniform(5, np.arange(100_000))
  assert draws.min() >= 0 and draws.max() < 1
  counts = np.bincount((draws * 100).astype(int), minlength=100)
  assert _chi_square(counts) < _chi_square_bound(99)
  # Neighbouring counters are not correlated: 6 standard errors.
  correlation = np.corrcoef(draws[1:], draws[:-1])[0, 1]
  assert abs(correlation) < 6 / np.sqrt(len(draws))


@hypothesis.given(st.integers(1, 2**40), st.integers(0, 1000))
def test_below_stays_below(limit, seed):
  draws = counter_rng.below(limit, seed, np.arange(50))
  assert draws.dtype == np.int64
  assert draws.min() >= 0 and draws.max() < limit


def test_below_is_uniform_and_takes_limits_by_element():
  counts = np.bincount(counter_rng.below(37, 1, np.arange(50_000)))
  assert len(counts) == 37
  assert _chi_square(counts) < _chi_square_bound(36)
  limits = np.array([1, 2, 1000])
  assert (counter_rng.below(limits, 3, np.arange(3)) < limits).all()


def test_permutation_of_every_small_size():
  for size in range(1, 201):
    image = counter_rng.permute(np.arange(size), size, seed=size, epoch=1)
    np.testing.assert_array_equal(np.sort(image), np.arange(size))


@hypothesis.given(
  st.integers(1, 60_000), st.integers(0, 2**60), st.integers(0, 1000)
)
def test_permutation_of_any_size(size, seed, epoch):
  image = counter_rng.permute(np.arange(size), size, seed, epoch)
  assert len(np.unique(image)) == size
  assert image.min() == 0 and image.max() == size - 1


@hypothesis.given(
  st.integers(1, 2**40), st.integers(0, 99), st.integers(0, 9), st.data()
)
def test_permutation_follows_the_definition(size, seed, epoch, data):
  index = data.draw(st.lists(st.integers(0, size - 1), max_size=5))
  given = np.array(index, np.int64)
  image = counter_rng.permute(given, size, seed, epoch)
  assert image.tolist() == [_slow_permute(i, size, seed, epoch) for i in index]
  assert given.tolist() == index  # The argument is not written to.


def test_permutation_differs_by_seed_and_epoch_and_repeats():
  index = np.arange(1000)
  images = {
    key: counter_rng.permute(index, 1000, *key)
    for key in [(0, 0), (0, 1), (1, 0), (1, 1)]
  }
  for key, image in images.items():
    np.testing.assert_array_equal(image, counter_rng.permute(index, 1000, *key))
    for other, second in images.items():
      # Random permutations share one fixed position on average; P(>12) < 1e-9.
      same = (image == second).sum()
      assert same == 1000 if key == other else same <= 12


@pytest.mark.parametrize('size', [7, 20, 50])
def test_every_image_is_equally_likely(size):
  seeds = 1500
  count = np.zeros((size, size), int)
  for seed in range(seeds):
    image = counter_rng.permute(np.arange(size), size, seed, epoch=0)
    count[np.arange(size), image] += 1
  assert max(_chi_square(row) for row in count) < _chi_square_bound(size - 1)


def test_neighbours_are_torn_apart():
  size = 10_000
  image = counter_rng.permute(np.arange(size), size, seed=3, epoch=2)
  # Runs image[i + 1] = image[i] + 1 are Poisson with mean 1: P(>12) < 1e-9.
  assert (np.diff(image) == 1).sum() <= 12
