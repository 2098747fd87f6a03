"""A made log whose true relevance is known, to score a search against.

The process, for one user and event number n + 1, after n events:

1. With probability `relevance` (never for n = 0) the event has a cause: the
   behavior at position p = 1..n, 1 the most recent, drawn with probability
   proportional to decay(p) = exp(-(p - 1) / recency_scale).
2. The category c' of the cause makes the event's category c with probability
   P(c | c'): c' itself with `self_share`, else one of the `num_partners`
   partners of c', the j-th with a share proportional to 1 / j.
3. Without a cause, the category is drawn from the popularity q, Zipf with
   `category_exponent`.
4. The item is drawn within the category, Zipf with `item_exponent`.

Hence P(c | history) = (1 - relevance) q(c) + relevance sum_p decay(p) P(c |
c_p) / sum_p decay(p), and the true relevance of a behavior of category c' at
position p for a target of category c is its term of the sum,

    relevance(c, c', p) = decay(p) P(c | c'),

to which the probability that this behavior caused that target is proportional,
over the behaviors of a history. It is 0 for all but `num_partners` + 1
categories, so the affinity P is stored by category as a short list.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import ml_collections
import numpy as np

from dare_jax import errors
from dare_jax.logs import id_map

_CHUNK_EVENTS = 2_000_000  # made at a time; part of what a seed means
_LAST_SECOND = 1_700_000_000
_MEAN_GAP_S = 1_800
# Names of independent random streams.
_PARTNERS, _CATALOGUE, _LENGTHS, _EVENTS = range(4)


@dataclasses.dataclass(frozen=True)
class Spec:
  """The parameters; `configs/base.py` says what each means.

  Raises:
    UsageError: a value outside its range.
  """

  num_users: int
  num_items: int
  num_categories: int
  events_per_user: int
  max_events: int
  events_sigma: float
  num_partners: int
  self_share: float
  recency_scale: float
  relevance: float
  item_exponent: float
  category_exponent: float
  synthetic_seed: int

  def __post_init__(self) -> None:
    rules = {
      'num_users': (self.num_users >= 1, '1 or more'),
      'num_categories': (self.num_categories >= 1, '1 or more'),
      'num_items': (
        self.num_items >= self.num_categories,
        f'num_categories={self.num_categories} or more',
      ),
      'events_per_user': (self.events_per_user >= 1, '1 or more'),
      'max_events': (
        self.max_events >= self.events_per_user,
        f'events_per_user={self.events_per_user} or more',
      ),
      'events_sigma': (0 <= self.events_sigma <= 3, '0 to 3'),
      'num_partners': (
        0 <= self.num_partners < self.num_categories,
        f'0 or more, below num_categories={self.num_categories}',
      ),
      'self_share': (0 <= self.self_share <= 1, '0 to 1'),
      'recency_scale': (self.recency_scale > 0, 'above 0'),
      'relevance': (0 <= self.relevance < 1, '0 or more, below 1'),
      'item_exponent': (0 <= self.item_exponent <= 5, '0 to 5'),
      'category_exponent': (0 <= self.category_exponent <= 5, '0 to 5'),
      'synthetic_seed': (self.synthetic_seed >= 0, '0 or more'),
    }
    for field, (is_met, rule) in rules.items():
      if not is_met:
        raise errors.UsageError(
          f'data.{field}={getattr(self, field)}: expected {rule}.'
        )

  @classmethod
  def from_section(cls, section: ml_collections.ConfigDict) -> Spec:
    """Returns the process that a config's section `data` describes."""
    return cls(**{field.name: section[field.name] for field in FIELDS})

  def rng(self, *stream: int) -> np.random.Generator:
    return np.random.default_rng([self.synthetic_seed, *stream])


FIELDS = dataclasses.fields(Spec)


@dataclasses.dataclass(frozen=True)
class Truth:
  """The planted relevance, by raw category number (dense id - 2).

  Attributes:
    affinity_ids: int32 [categories, partners + 1], the categories that one
      makes likely, itself first.
    affinity_weights: float32 [partners + 1], P of these.
    decay: float32 [max_events], by position - 1.
    popularity: float32 [categories], q.
  """

  affinity_ids: np.ndarray
  affinity_weights: np.ndarray
  decay: np.ndarray
  popularity: np.ndarray


@dataclasses.dataclass(frozen=True)
class SyntheticLog:
  """Events of all users in time order, ragged by `offsets` [users + 1].

  `item` and `category` are int32 raw numbers from 0; `timestamp` is int64.
  """

  offsets: np.ndarray
  item: np.ndarray
  category: np.ndarray
  timestamp: np.ndarray
  truth: Truth


@dataclasses.dataclass(frozen=True)
class _Catalogue:
  """Items grouped by category, the most popular one of each first."""

  items: np.ndarray
  starts: np.ndarray


def generate(spec: Spec) -> SyntheticLog:
  """Makes the log; the same spec gives the same log.

  Time and memory grow with events and items, not with their product.
  """
  truth = make_truth(spec)
  catalogue = _make_catalogue(spec, truth.popularity)
  lengths = _history_lengths(spec)
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  total = int(offsets[-1])
  log = SyntheticLog(
    offsets,
    np.empty(total, np.int32),
    np.empty(total, np.int32),
    np.empty(total, np.int64),
    truth,
  )
  user = 0
  while user < spec.num_users:
    limit = offsets[user] + _CHUNK_EVENTS
    stop = int(np.searchsorted(offsets, limit, side='right')) - 1
    stop = max(stop, user + 1)
    rng = spec.rng(_EVENTS, user)
    rows = slice(offsets[user], offsets[stop])
    lengths_here = lengths[user:stop]
    category = _categories(rng, spec, truth, lengths_here)
    log.category[rows] = category
    log.item[rows] = _items(rng, spec.item_exponent, catalogue, category)
    log.timestamp[rows] = _timestamps(rng, lengths_here)
    user = stop
  return log


def make_truth(spec: Spec) -> Truth:
  """Returns what is planted."""
  size = spec.num_categories
  rng = spec.rng(_PARTNERS)
  steps = np.empty((size, 0), np.int64)
  for taken in range(spec.num_partners):
    # A draw among the steps not yet taken: skip those at or below it.
    step = rng.integers(0, size - 1 - taken, size)
    for used in np.sort(steps, axis=1).T:
      step += step >= used
    steps = np.concatenate([steps, step[:, None]], axis=1)
  own = np.arange(size)[:, None]
  partners = (own + 1 + steps) % size
  shares = 1 / np.arange(1, spec.num_partners + 1)
  rest = 1 - spec.self_share
  weights = np.append(spec.self_share, rest * shares / shares.sum())
  if not spec.num_partners:
    weights = np.ones(1)
  popularity = np.arange(1, size + 1, dtype=float) ** -spec.category_exponent
  positions = np.arange(spec.max_events)
  return Truth(
    np.concatenate([own, partners], axis=1).astype(np.int32),
    weights.astype(np.float32),
    np.exp(-positions / spec.recency_scale).astype(np.float32),
    (popularity / popularity.sum()).astype(np.float32),
  )


def _draw(
  rng: np.random.Generator, weights: np.ndarray, size: int
) -> np.ndarray:
  """Returns int64 [size] indices, drawn in proportion to `weights`."""
  cdf = np.cumsum(weights, dtype=float)
  index = np.searchsorted(cdf, rng.random(size) * cdf[-1], side='right')
  return np.minimum(index, len(weights) - 1)


def _make_catalogue(spec: Spec, popularity: np.ndarray) -> _Catalogue:
  """Each category has one item at least, popular ones have more."""
  rng = spec.rng(_CATALOGUE)
  category = np.empty(spec.num_items, np.int32)
  category[: spec.num_categories] = np.arange(spec.num_categories)
  rest = spec.num_items - spec.num_categories
  category[spec.num_categories :] = _draw(rng, popularity, rest)
  rng.shuffle(category)
  counts = np.bincount(category, minlength=spec.num_categories)
  items = np.argsort(category, kind='stable').astype(np.int32)
  return _Catalogue(items, np.concatenate([[0], np.cumsum(counts)]))


def _history_lengths(spec: Spec) -> np.ndarray:
  """Log-normal around `events_per_user`, from half of it to `max_events`."""
  rng = spec.rng(_LENGTHS)
  sigma = spec.events_sigma
  scale = rng.lognormal(-(sigma**2) / 2, sigma, spec.num_users)
  lengths = np.round(spec.events_per_user * scale).astype(np.int64)
  shortest = max(1, spec.events_per_user // 2)
  return np.clip(lengths, shortest, spec.max_events)


def _categories(
  rng: np.random.Generator, spec: Spec, truth: Truth, lengths: np.ndarray
) -> np.ndarray:
  """Draws who caused whom first, then categories, causes before effects."""
  total = int(lengths.sum())
  first = np.repeat(np.cumsum(lengths) - lengths, lengths)
  row = np.arange(total)
  num_before = row - first
  has_cause = (rng.random(total) < spec.relevance) & (num_before > 0)
  # Inverse of (1 - w^p) / (1 - w^n), w = exp(-1 / recency_scale).
  scale = spec.recency_scale
  covered = -np.expm1(-num_before / scale)
  gap = -scale * np.log1p(-rng.random(total) * covered)
  # Rounding must not reach beyond the first event.
  gap = np.minimum(gap.astype(np.int64), np.maximum(num_before - 1, 0))
  cause = row - 1 - gap
  slot = _draw(rng, truth.affinity_weights, total)
  category = _draw(rng, truth.popularity, total).astype(np.int32)
  known = ~has_cause
  pending = np.flatnonzero(has_cause)
  while len(pending):
    ready = known[cause[pending]]
    rows = pending[ready]
    category[rows] = truth.affinity_ids[category[cause[rows]], slot[rows]]
    known[rows] = True
    pending = pending[~ready]
  return category


def _items(
  rng: np.random.Generator,
  exponent: float,
  catalogue: _Catalogue,
  category: np.ndarray,
) -> np.ndarray:
  """Draws ranks by the inverse of a continuous Zipf law, rounded down.

  P(rank < k) = ((k + 1)^(1 - s) - 1) / ((n + 1)^(1 - s) - 1) with ranks from 0,
  exponent s, n items in the category; logarithms instead of powers at s = 1.
  """
  starts = catalogue.starts
  size = starts[category + 1] - starts[category]
  draw = rng.random(len(category))
  power = 1 - exponent
  top = np.log1p(size)
  if abs(power) < 1e-9:
    log_rank = draw * top
  else:
    log_rank = np.log1p(draw * np.expm1(power * top)) / power
  rank = np.expm1(log_rank).astype(np.int64)
  return catalogue.items[starts[category] + np.minimum(rank, size - 1)]


def _timestamps(rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
  """Seconds, strictly increasing in a user; all users end within a day."""
  total = int(lengths.sum())
  gaps = 1 + rng.exponential(_MEAN_GAP_S, total).astype(np.int64)
  elapsed = np.cumsum(gaps)
  last = np.cumsum(lengths) - 1
  end = _LAST_SECOND - rng.integers(0, 86_400, len(lengths))
  return elapsed + np.repeat(end - elapsed[last], lengths)


_FORMULA = (
  'relevance(target, behavior, position) = decay[position - 1] *'
  ' sum(affinity_weights[affinity_ids[behavior] == target]); categories by'
  ' raw number, which is the dense id - 2; position 1 is the most recent'
  ' behavior'
)


def save_truth(truth: Truth, spec: Spec, directory: pathlib.Path) -> None:
  """Writes `<table>.npy` for each table, and `truth.json` with the formula."""
  directory.mkdir(parents=True, exist_ok=True)
  for name, table in vars(truth).items():
    np.save(directory / f'{name}.npy', table, allow_pickle=False)
  text = {'formula': _FORMULA, 'parameters': dataclasses.asdict(spec)}
  (directory / 'truth.json').write_text(json.dumps(text, indent=1))


def load_truth(directory: pathlib.Path) -> Truth:
  """Opens what `save_truth` wrote, memory-mapped.

  Raises:
    UsageError: not a folder with a truth.
  """
  names = [field.name for field in dataclasses.fields(Truth)]
  try:
    return Truth(
      *(
        np.load(directory / f'{name}.npy', mmap_mode='r', allow_pickle=False)
        for name in names
      )
    )
  except (OSError, ValueError) as error:
    raise errors.UsageError(
      f'{directory}: no planted truth ({error}); expected the folder `truth`'
      ' of a store of the dataset synthetic_lifelong.'
    ) from None


def relevance(
  truth: Truth,
  target_category: np.ndarray,
  behavior_category: np.ndarray,
  position: np.ndarray,
) -> np.ndarray:
  """Returns decay(p) P(c | c'), the module's equation, for broadcast arrays.

  Args:
    truth: the planted tables.
    target_category: int, dense ids of the targets' categories c, of any shape.
    behavior_category: int, dense ids of the behaviors' categories c', which
      broadcast with those.
    position: int, how far back each behavior lies from its target; 1 is the
      last one before it.

  Returns:
    float32, the broadcast shape; 0 for padding and unknown ids and for
    positions outside 1 to max_events.
  """
  target, behavior, position = np.broadcast_arrays(
    np.asarray(target_category) - id_map.FIRST,
    np.asarray(behavior_category) - id_map.FIRST,
    np.asarray(position) - 1,
  )
  sizes = len(truth.affinity_ids), len(truth.decay)
  valid = (behavior >= 0) & (behavior < sizes[0])
  valid &= (position >= 0) & (position < sizes[1])
  result = np.zeros(target.shape, np.float32)
  behavior = np.where(valid, behavior, 0)
  for slot, weight in enumerate(truth.affinity_weights):
    result += weight * (truth.affinity_ids[behavior, slot] == target)
  return result * np.where(valid, truth.decay[np.where(valid, position, 0)], 0)
