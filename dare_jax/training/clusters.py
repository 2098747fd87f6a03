"""Hierarchical clusters of each user's behaviors, made on the host (TWIN V2).

TWIN V2 (arXiv 2407.16357) searches clusters of a user's lifelong history in
place of its behaviors. Here a cluster is a set of rows of the log, so that a
window can look at it as of any moment: see `cluster_search`.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses

import numpy as np

# Events worked on at once, unless a single user has more.
_CHUNK = 1 << 15


@dataclasses.dataclass(frozen=True)
class Clusters:
  """What cluster each event is in, and how near to its centroid.

  Attributes:
    cluster: int32 [n], from 0 within the user, without gaps, in the order of
      the clusters' oldest fitted events.
    rank: int32 [n], from 0 within the cluster, without gaps; 0 is the member
      nearest the centroid, of equals the most recent.
  """

  cluster: np.ndarray
  rank: np.ndarray


def hierarchical_clusters(
  vectors: np.ndarray,
  offsets: np.ndarray,
  max_size: int,
  fit_before: np.ndarray | None = None,
  iterations: int = 5,
  seed: int = 0,
) -> Clusters:
  """Splits each user's events by k-means until no cluster is too large.

  A group of more than `max_size` events is split around
  max(2, floor(size ** 0.3)) centroids, and so on within each part. The first
  centroids are evenly spaced members, the two ends included, in the order of
  the group's projections on a direction drawn from `seed`; a centroid that
  loses its members stays where it is. Equal vectors share their cluster as
  far as it has room: a group that k-means leaves whole is cut into runs of
  `max_size` events in time order.

  Late events, those from `fit_before` on, move no centroid and change no
  cluster or rank of the earlier events. Each joins the user's nearest final
  cluster, even beyond `max_size`, ranked after the fitted members. Without
  any fitted event, each late event is a cluster of its own.

  What a user gets depends on no other user.

  Args:
    vectors: float [n, d], one vector of each event, such as its item's
      embedding; users in order, each user's events in time order.
    offsets: int64 [users + 1], the rows of user u are offsets[u] to
      offsets[u + 1].
    max_size: largest number of fitted events in a cluster.
    fit_before: int64 [users], the row of each user's first late event,
      offsets[u + 1] where there is none; None if no user has any.
    iterations: rounds of assigning events to centroids in each split.
    seed: seed of the direction along which the first centroids lie.

  Raises:
    ValueError: an argument out of bounds, shapes that disagree, or a vector
      that is not finite.

  >>> import numpy as np
  >>> vectors = np.array([[0.0], [9.0], [0.2], [9.1], [0.3]], np.float32)
  >>> found = hierarchical_clusters(vectors, np.array([0, 5]), max_size=3)
  >>> found.cluster.tolist(), found.rank.tolist()
  ([0, 1, 0, 1, 0], [2, 1, 0, 0, 1])
  """
  offsets, stops = _check(vectors, offsets, max_size, fit_before, iterations)
  direction = np.random.default_rng(seed).normal(size=vectors.shape[1:])
  cluster = np.empty(len(vectors), np.int32)
  rank = np.empty(len(vectors), np.int32)
  for users in _user_chunks(offsets):
    bounds = offsets[users.start : users.stop + 1]
    rows = slice(bounds[0], bounds[-1])
    chunk = np.asarray(vectors[rows], np.float64)
    if not np.isfinite(chunk).all():
      bad = bounds[0] + np.flatnonzero(~np.isfinite(chunk).all(1))[0]
      raise ValueError(
        f'vectors[{bad}] is not finite; clusters need finite vectors.'
      )
    cluster[rows], rank[rows] = _cluster_users(
      chunk,
      bounds - bounds[0],
      stops[users] - bounds[0],
      direction,
      max_size,
      iterations,
    )
  return Clusters(cluster, rank)


def _check(
  vectors: np.ndarray,
  offsets: np.ndarray,
  max_size: int,
  fit_before: np.ndarray | None,
  iterations: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the offsets and each user's first late row, both int64."""
  if max_size < 1:
    raise ValueError(f'max_size={max_size}: expected at least 1.')
  if iterations < 1:
    raise ValueError(f'iterations={iterations}: expected at least 1.')
  if vectors.ndim != 2 or not vectors.shape[1]:
    raise ValueError(
      f'vectors of shape {vectors.shape}: expected [n, d], d at least 1.'
    )
  offsets = np.asarray(offsets, np.int64)
  if (
    offsets.ndim != 1
    or not len(offsets)
    or offsets[0] != 0
    or offsets[-1] != len(vectors)
    or (np.diff(offsets) < 0).any()
  ):
    raise ValueError(
      f'offsets: expected ascending rows from 0 to {len(vectors)}, the number'
      ' of vectors.'
    )
  if fit_before is None:
    return offsets, offsets[1:]
  stops = np.asarray(fit_before, np.int64)
  if stops.shape != offsets[1:].shape:
    raise ValueError(
      f'fit_before of shape {stops.shape}: expected one row for each of the'
      f' {len(offsets) - 1} users.'
    )
  outside = np.flatnonzero((stops < offsets[:-1]) | (stops > offsets[1:]))
  if len(outside):
    user = outside[0]
    raise ValueError(
      f'fit_before[{user}]={stops[user]}: expected one of the rows of user'
      f' {user}, {offsets[user]} to {offsets[user + 1]}.'
    )
  return offsets, stops


def _user_chunks(offsets: np.ndarray) -> Iterator[slice]:
  """Yields runs of users of about _CHUNK events, of one user at the least."""
  start, num_users = 0, len(offsets) - 1
  while start < num_users:
    stop = int(np.searchsorted(offsets, offsets[start] + _CHUNK, 'right')) - 1
    stop = min(max(stop, start + 1), num_users)
    yield slice(start, stop)
    start = stop


def _cluster_users(
  vectors: np.ndarray,
  offsets: np.ndarray,
  stops: np.ndarray,
  direction: np.ndarray,
  max_size: int,
  iterations: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns cluster and rank of the events of a few users."""
  num_events, num_users = len(vectors), len(stops)
  rows = np.arange(num_events)
  user = np.repeat(np.arange(num_users), np.diff(offsets))
  has_fitted = (stops > offsets[:-1])[user]
  is_late = has_fitted & (rows >= stops[user])
  # Any number that tells clusters apart; singletons without a fitted event.
  label = rows.copy()
  fitted = np.flatnonzero(has_fitted & ~is_late)
  label[fitted] = num_events + _fit(
    vectors, fitted, user[fitted], direction, max_size, iterations
  )
  # Numbered by their oldest events, which also keeps users together.
  early = np.flatnonzero(~is_late)
  _, first, inverse = np.unique(
    label[early], return_index=True, return_inverse=True
  )
  label[early] = np.argsort(np.argsort(first))[inverse]
  offset = np.searchsorted(
    user[early[np.sort(first)]], np.arange(num_users + 1)
  )
  centroids = _means(vectors[early], label[early], np.zeros((len(first), 1)))
  late = np.flatnonzero(is_late)
  first_choice, num_choices = offset[:-1][user], np.diff(offset)[user]
  # The order that `_nearest` asks for.
  late = late[np.argsort(-num_choices[late], kind='stable')]
  label[late] = _nearest(
    vectors[late], centroids, first_choice[late], num_choices[late]
  )
  distance = _squared_distance(vectors, centroids[label])
  order = np.lexsort((-rows, distance, is_late, label))
  starts, sizes = _runs(label[order])
  rank = np.empty(num_events, np.int64)
  rank[order] = rows - np.repeat(starts, sizes)
  return label - first_choice, rank


def _fit(
  vectors: np.ndarray,
  rows: np.ndarray,
  user: np.ndarray,
  direction: np.ndarray,
  max_size: int,
  iterations: int,
) -> np.ndarray:
  """Returns a number for each of `rows`, equal in a cluster and only there."""
  projection = np.zeros(len(rows))
  for column, weight in enumerate(direction):
    # Not by a matrix product: equal vectors must have equal projections.
    projection += vectors[rows, column] * weight
  order = np.lexsort((projection, user))
  label = np.empty(len(vectors), np.int64)
  num_labels = 0
  active, group = rows[order], user[order]
  while len(active):
    starts, sizes = _runs(group)
    # That of a group too large is overwritten once it is split.
    label[active] = num_labels + np.repeat(np.arange(len(sizes)), sizes)
    num_labels += len(sizes)
    # Large groups first, for `_nearest`; stable, in order of projection.
    size = np.repeat(sizes, sizes)
    order = np.flatnonzero(size > max_size)
    order = order[np.argsort(-size[order], kind='stable')]
    active = active[order]
    group = _split(vectors, active, label[active], max_size, iterations)
    order = np.argsort(group, kind='stable')
    active, group = active[order], group[order]
  return label[rows]


def _split(
  vectors: np.ndarray,
  rows: np.ndarray,
  group: np.ndarray,
  max_size: int,
  iterations: int,
) -> np.ndarray:
  """Returns a number for each of `rows`, equal in a part and only there.

  Args:
    vectors: float [events, d], one vector of each event.
    rows: int [n], rows of `vectors`, group by group, in the order of their
      projection.
    group: int [n], group of each row; larger groups come first.
    max_size: length of the runs that a group is cut into as a last resort.
    iterations: rounds of k-means.
  """
  starts, sizes = _runs(group)
  group = np.repeat(np.arange(len(sizes)), sizes)
  num_parts = np.maximum(2, np.floor(sizes**0.3).astype(np.int64))
  first_part = np.cumsum(num_parts) - num_parts
  owner = np.repeat(np.arange(len(sizes)), num_parts)
  step = np.arange(len(owner)) - first_part[owner]
  seeds = starts[owner] + step * (sizes[owner] - 1) // (num_parts[owner] - 1)
  points, centroids = vectors[rows], vectors[rows[seeds]]
  choices = first_part[group], num_parts[group]
  parts = _nearest(points, centroids, *choices)
  for _ in range(iterations - 1):
    centroids = _means(points, parts, centroids)
    before, parts = parts, _nearest(points, centroids, *choices)
    if np.array_equal(before, parts):
      break
  whole = np.bincount(parts)[parts] == sizes[group]
  if whole.any():
    cut = np.flatnonzero(whole)
    cut = cut[np.lexsort((rows[cut], group[cut]))]
    starts, sizes = _runs(group[cut])
    piece = (np.arange(len(cut)) - np.repeat(starts, sizes)) // max_size
    starts, sizes = _runs(group[cut] * len(rows) + piece)
    parts[cut] = len(owner) + np.repeat(np.arange(len(starts)), sizes)
  return parts


def _means(
  points: np.ndarray, label: np.ndarray, default: np.ndarray
) -> np.ndarray:
  """Returns the mean of each label's points, or the default where none is."""
  count = np.bincount(label, minlength=len(default))
  total = [
    np.bincount(label, weights=column, minlength=len(default))
    for column in points.T
  ]
  mean = np.stack(total, axis=-1) / np.maximum(count, 1)[:, None]
  return np.where(count[:, None] > 0, mean, default)


def _nearest(
  points: np.ndarray,
  centroids: np.ndarray,
  first: np.ndarray,
  count: np.ndarray,
) -> np.ndarray:
  """Returns the nearest of the `count` centroids from number `first` on.

  Of equally near ones the first. Points come in descending order of count.
  """
  best = first.copy()
  least = np.full(len(points), np.inf)
  for j in range(count[0] if len(count) else 0):
    stop = np.searchsorted(-count, -j)
    candidate = first[:stop] + j
    distance = _squared_distance(points[:stop], centroids[candidate])
    is_nearer = distance < least[:stop]
    np.copyto(best[:stop], candidate, where=is_nearer)
    np.copyto(least[:stop], distance, where=is_nearer)
  return best


def _squared_distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
  difference = left - right
  return np.einsum('nd,nd->n', difference, difference)


def _runs(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns where each run of equal labels starts, and its length."""
  is_start = np.ones(len(label), bool)
  is_start[1:] = label[1:] != label[:-1]
  starts = np.flatnonzero(is_start)
  return starts, np.diff(starts, append=len(label))
