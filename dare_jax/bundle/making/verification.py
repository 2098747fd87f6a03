"""A bundle that was just written, compared with the run that it is of."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from dare_jax import errors
from dare_jax import trained
from dare_jax import types
from dare_jax.bundle import reading
from dare_jax.bundle import requests as requests_lib
from dare_jax.bundle.making import functions
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.evaluation import metrics
from dare_jax.process import numerics

# Tolerance of logits: float32 sums in another order, or of narrower numbers.
_TOLERANCE = {'float32': 1e-5, 'bfloat16': 0.03}
# Of targets for which other behaviors may be found than by the run: where a
# hash flips by rounding. Behaviors that tie are not among them.
_FLIPPED_SHARE = 0.01
_MOMENTS = 8
_AUC_BATCHES, _AUC_MOMENTS = 8, 256
_RAW_VALUES = 1000


@dataclasses.dataclass(frozen=True)
class Verified:
  """What was compared.

  Attributes:
    moments: number of moments of the test split, drawn at random.
    candidates: number of candidates of each moment.
    worst: largest difference of a logit between run and bundle, relative where
      the logit is above 1.
    change: largest change of a logit by tables narrower than float32; 0 without
      such.
    auc: AUC of test rows by the run, and by the bundle's tables; None where the
      tables are the same.
  """

  moments: int
  candidates: int
  worst: float
  change: float
  auc: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class _Rows:
  """Users, and what the run makes of them.

  Attributes:
    histories: field -> ids of each user, oldest first.
    candidates: field -> ids of each user.
    contexts: field -> id of each user.
  """

  histories: Sequence[requests_lib.Ids]
  candidates: Sequence[requests_lib.Ids]
  contexts: Sequence[Mapping[str, int]]


@numerics.of_runs()
def verify(
  opened: reading.Bundle, run: trained.Trained, variables: Mapping[str, Any]
) -> Verified:
  """Compares ids, and the scores of every program, with those of the run.

  Args:
    opened: the bundle, opened.
    run: the run from which the bundle was made.
    variables: name -> array of the bundle, its tables in float32 or narrower.

  Raises:
    UsageError: they differ.
  """
  _verify_ids(opened, run)
  narrow = functions.nested(variables)
  rows = _rows(run)
  worst = 0.0
  longest = opened.manifest['capacity']
  for capacity in sorted({longest, *(s.capacity for s in opened.shapes)}):
    short = _cut(rows, capacity)
    expected = _expected(run, narrow, short)
    for scores in _by_programs(opened, short, capacity):
      worst = max(worst, _difference(opened, run, expected, scores))
  change, auc = 0.0, None
  if opened.manifest['precision'] != 'float32':
    own = _expected(run, run.variables, rows)
    new = _expected(run, narrow, rows)
    pairs = zip(own, new, strict=True)
    change = max(float(np.abs(a.logit - b.logit).max()) for a, b in pairs)
    auc = _auc(run, run.variables), _auc(run, narrow)
  return Verified(_MOMENTS, len(rows.candidates[0]['item']), worst, change, auc)


def _verify_ids(opened: reading.Bundle, run: trained.Trained) -> None:
  rng = np.random.default_rng(0)
  store = run.experiment.store
  for field in (*opened.fields, *opened.context_fields):
    raw = store.raw_ids(field)
    count = min(len(raw), _RAW_VALUES)
    some = raw.gather(rng.choice(len(raw), count, replace=False)).to_list()
    for given in (some, [*some, None]):
      found = opened.ids(field, given)
      if not np.array_equal(found, run.ids(field, given)):
        raise _refuse(f'ids of {field} differ')


def _rows(run: trained.Trained) -> _Rows:
  """Returns random moments of the test split; each scores all their targets."""
  parts = run.experiment
  options = parts.options.data
  moments = splits.make_splits(parts.store, options)['test']
  picked = np.random.default_rng(0).choice(len(moments), _MOMENTS)
  layout = pipeline.Layout(with_times=bool(run.model.config.real_time))
  few = pipeline.Pipeline(
    parts.store,
    moments.take(picked),
    'test',
    options,
    0,
    layout=layout,
    known=parts.known,
  )
  histories, targets, contexts = [], [], []
  for item in few.eval_batches(_MOMENTS):
    batch = item.batch
    real = np.flatnonzero(batch.targets.weight.any(axis=(1, 2)))
    for row in real:
      seen = batch.history.mask[row]
      seen = seen & (np.arange(len(seen)) < batch.end[row, 0])
      histories.append({f: x[row][seen] for f, x in batch.history.ids.items()})
      context = {f: int(x[row, 0]) for f, x in batch.context.items()}
      contexts.append(context)
      if batch.now is not None and batch.history.time is not None:
        histories[-1][requests_lib.TIME] = batch.history.time[row][seen]
        contexts[-1][requests_lib.TIME] = int(batch.now[row, 0])
    targets.append({f: x[real].ravel() for f, x in batch.targets.ids.items()})
  every = {
    field: np.concatenate([part[field] for part in targets])
    for field in targets[0]
  }
  count = min(_MOMENTS, len(histories))
  return _Rows(histories[:count], [every] * count, contexts[:count])


def _cut(rows: _Rows, length: int) -> _Rows:
  histories = [
    {field: ids[-length:] for field, ids in history.items()}
    for history in rows.histories
  ]
  return dataclasses.replace(rows, histories=histories)


def _expected(
  run: trained.Trained, variables: Mapping[str, Any], rows: _Rows
) -> list[requests_lib.Scores]:
  """Returns what the run's model makes of each user, one at a time."""
  return [
    _of_user(run, variables, *user)
    for user in zip(rows.histories, rows.candidates, rows.contexts, strict=True)
  ]


def _of_user(
  run: trained.Trained,
  variables: Mapping[str, Any],
  history: requests_lib.Ids,
  candidates: requests_lib.Ids,
  context: Mapping[str, int],
) -> requests_lib.Scores:
  length, count = run.history_length, len(history['item'])
  fill = length - count
  past = {f: np.pad(x, (fill, 0))[None] for f, x in history.items()}
  moment = {f: np.full((1, 1), x, np.int32) for f, x in context.items()}
  time, now = (some.pop(requests_lib.TIME, None) for some in (past, moment))
  weight = np.ones((1, 1, len(candidates['item'])), np.float32)
  batch = types.Batch(
    history=types.History(
      ids=past, mask=np.arange(length)[None] >= fill, time=time
    ),
    end=np.full((1, 1), length, np.int32),
    targets=types.Targets(
      ids={f: x[None, None] for f, x in candidates.items()},
      label=weight,
      weight=weight,
    ),
    context=moment,
    now=now,
  )
  output = jax.device_get(_predict(run.model, variables, batch))
  found = output.search
  distance = found.distance[0, 0]
  return requests_lib.Scores(
    output.logits[0, 0].astype(np.float32),
    distance,
    output.weights[0, 0],
    # Padding that takes part is no behavior.
    found.mask[0, 0] & (distance <= count),
  )


@jax.jit(static_argnums=0)
def _predict(model: Any, variables: Any, batch: types.Batch) -> Any:
  return model.apply(variables, batch)


def _by_programs(
  opened: reading.Bundle, rows: _Rows, capacity: int
) -> Iterator[list[requests_lib.Scores]]:
  """Yields scores of all users by each shape, and by any-size programs."""
  shapes = [s for s in opened.shapes if s.capacity == capacity]
  for shape in shapes:
    yield _scores(opened.of_shapes([shape]), rows, rows.histories)
  any_size = opened.of_shapes([])
  if capacity == opened.manifest['capacity']:
    yield _scores(any_size, rows, rows.histories)
  if opened.has_cached_keys:
    for one in (opened.of_shapes(shapes), any_size):
      states = [_appended(one, history) for history in rows.histories]
      yield _scores(one, rows, states)


def _appended(
  opened: reading.Bundle, history: requests_lib.Ids
) -> requests_lib.State:
  """Returns the state of a history whose last behavior came afterwards."""
  state = opened.encode({f: ids[:-1] for f, ids in history.items()})
  if not len(history['item']):
    return state
  return opened.append(state, {f: ids[-1] for f, ids in history.items()})


def _scores(
  opened: reading.Bundle, rows: _Rows, histories: Sequence[Any]
) -> list[requests_lib.Scores]:
  return opened.score(histories, rows.candidates, rows.contexts, explain=True)


def _difference(
  opened: reading.Bundle,
  run: trained.Trained,
  expected: Sequence[requests_lib.Scores],
  scores: Sequence[requests_lib.Scores],
) -> float:
  """Returns the largest difference of a logit.

  Raises:
    UsageError: it is too large, or other behaviors were found.
  """
  tolerance = _TOLERANCE[run.model.config.compute_dtype]
  worst, flipped, count = 0.0, 0, 0
  for own, new in zip(expected, scores, strict=True):
    gap = np.abs(own.logit - new.logit) / np.maximum(1, np.abs(own.logit))
    same = np.ones(len(gap), bool)
    if not opened.manifest['keeps_all']:
      found, weight = (_places(x, run.history_length) for x in (own, new))
      same = np.all((found > 0) == (weight > 0), axis=1)
      worst = max(worst, float(np.abs(found - weight)[same].max(initial=0)))
      flipped += int((~same & ~_tie(found, weight, tolerance)).sum())
    count += len(same)
    worst = max(worst, float(gap[same].max(initial=0)))
  if not worst <= tolerance:
    raise _refuse(f'scores differ by {worst:.2g}, more than {tolerance:.2g}')
  if flipped > _FLIPPED_SHARE * count:
    raise _refuse(
      f'other behaviors were found for {flipped} of {count} targets'
    )
  return worst


def _tie(own: np.ndarray, new: np.ndarray, tolerance: float) -> np.ndarray:
  """Returns bool [c]: whether what differs weighs the same, so scores tie.

  Args:
    own: float32 [c, distances], the run's weights.
    new: float32 [c, distances], the bundle's.
    tolerance: the largest difference of weights that count as tied.
  """
  apart = np.abs(np.sort(own, axis=1) - np.sort(new, axis=1))
  return apart.max(axis=1) <= tolerance


def _places(scores: requests_lib.Scores, longest: int) -> np.ndarray:
  """Returns the weights by distance, [c, distances]; 0 where none was found."""
  distance, weight = np.asarray(scores.distance), np.asarray(scores.weight)
  mask = np.asarray(scores.mask)
  placed = np.zeros((len(distance), longest + 1), np.float32)
  kept = np.where(mask, distance, 0)
  np.put_along_axis(placed, kept, weight, axis=1)
  placed[:, 0] = 0
  return placed


def _auc(run: trained.Trained, variables: Mapping[str, Any]) -> float:
  """Returns the AUC of the first test rows."""
  logits, labels = [], []
  batches = run.experiment.pipelines['test'].eval_batches(_AUC_MOMENTS)
  for item, _ in zip(batches, range(_AUC_BATCHES), strict=False):
    real = item.batch.targets.weight > 0
    output = _predict(run.model, variables, item.batch)
    logits.append(np.asarray(output.logits)[real])
    labels.append(item.batch.targets.label[real])
  return metrics.auc(np.concatenate(logits), np.concatenate(labels))


def _refuse(what: str) -> errors.UsageError:
  return errors.UsageError(
    f'the bundle does not score as its run: {what}; nothing was written. This'
    ' is a bug of dare_jax, or of this JAX: try another version of it.'
  )
