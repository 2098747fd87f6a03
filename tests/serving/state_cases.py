"""States with ids or times beside the keys, and what they must find."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from dare_jax import models
from dare_jax import types
from dare_jax.search import gaps
from dare_jax.serving import user_state
from tests.models import examples

VOCAB = {'item': 6, 'category': 4}
K = 3
# Slots and appended behaviors of long rows: counted, and also by groups of
# neighbours; with rings that begin anywhere.
LONG = [(300, 37), (2048, 0)]
USERS, CANDIDATES = 2, 150
_LENGTH = 16
_LONG_K = 4
search = jax.jit(user_state.search, static_argnames='k')
append = jax.jit(user_state.append)
build = jax.jit(
  user_state.build, static_argnames=('precision', 'history_length')
)
_in_windows = jax.jit(user_state.in_windows, static_argnums=1)


def make_batch(candidates: int) -> types.Batch:
  """Returns windows whose only moment is at their end."""
  batch = examples.make_batch(
    vocab=VOCAB,
    moments=1,
    candidates=candidates,
    length=_LENGTH,
    num_padding=(0, 2, 13),
  )
  return batch.replace(end=np.full_like(batch.end, _LENGTH))


def found_in_state(
  model: models.Ranker,
  variables: Any,
  batch: types.Batch,
  precision: str,
  apart: bool,
) -> types.SearchResult:
  """Returns what a state finds, the last two behaviors appended to it.

  Args:
    model: a ranker with match terms or real time.
    variables: its variables.
    batch: of `make_batch`, with times for real time.
    precision: of the state.
    apart: whether the state holds categories in place of their keys.
  """
  call = functools.partial(examples.call, model, variables)
  history = batch.history
  of_columns = {
    'keys': call('encode_history', history, apart),
    'category': history.ids['category'] if apart else None,
    'match_ids': {f: history.ids[f] for f in model.config.match_fields},
    'time': history.time,
  }
  of_columns, mask = jax.device_get((of_columns, history.mask))
  first = jax.tree.map(lambda x: x[:, :-2], of_columns)
  state = build(
    mask=mask[:, :-2],
    precision=precision,
    history_length=_LENGTH,
    **first,
  )
  for i in (_LENGTH - 2, _LENGTH - 1):
    state = append(state, **jax.tree.map(lambda x, i=i: x[:, i], of_columns))
  ids = batch.targets.ids
  query, bias = call('encode_targets', ids, state.capacity, apart)
  scores = None
  if batch.now is not None:
    now = np.asarray(batch.now)[:, 0]
    scores = gaps.GapScores(now, call('encode_gaps'))
  found = search(
    state,
    np.asarray(query)[:, 0],
    bias,
    k=K,
    category_keys=call('encode_categories') if apart else None,
    matching=call('encode_matches', ids),
    gaps=scores,
  )
  return jax.device_get(_in_windows(found, _LENGTH))


@dataclasses.dataclass(frozen=True)
class LongRows:
  """A state of long rows of narrow keys: 2 k are chosen by narrow scores.

  Attributes:
    state: some behaviors of each user, the last ones appended.
    query: float32 [b, c, d].
    bias: of distances, the most recent first.
    scores: float32 [b, c, l], of content and positions, oldest first.
  """

  state: user_state.UserState
  query: np.ndarray
  bias: np.ndarray
  scores: np.ndarray

  def check(
    self, scores: np.ndarray, **terms: Any
  ) -> tuple[types.SearchResult, np.ndarray]:
    """Searches, and compares with the best of what scores should be.

    Args:
      scores: [b, c, l], with all terms.
      **terms: what `user_state.search` is told of these terms.

    Returns:
      What was found; int [b, c, k], which behaviors those are.
    """
    found = search(self.state, self.query, self.bias, k=_LONG_K, **terms)
    found = jax.device_get(found)
    best = np.argsort(-scores, axis=-1, kind='stable')[..., :_LONG_K]
    length = scores.shape[-1]
    np.testing.assert_array_equal(found.distance[:, 0], length - best)
    np.testing.assert_allclose(
      found.scores[:, 0],
      np.take_along_axis(scores, best, axis=-1),
      rtol=1e-5,
      atol=1e-5,
    )
    return found, best


def long_rows(
  precision: str,
  length: int,
  match_ids: Mapping[str, np.ndarray] | None = None,
  time: np.ndarray | None = None,
) -> LongRows:
  """Returns random long rows of `USERS`.

  Args:
    precision: of the state.
    length: behaviors that are shown.
    match_ids: field -> int32 [b, n], ids of the n behaviors; or None.
    time: int32 [b, n], their times; or None.
  """
  rng = np.random.default_rng(length)
  columns = {'match_ids': dict(match_ids or {}), 'time': time}
  (count, *_) = {x.shape[1] for x in jax.tree.leaves(columns)}
  keys = rng.normal(size=(USERS, count, 4)).astype(np.float32)
  query = rng.normal(size=(USERS, CANDIDATES, 4)).astype(np.float32)
  columns |= {'keys': keys}
  state = build(
    mask=np.ones((USERS, length), bool),
    precision=precision,
    **jax.tree.map(lambda x: x[:, :length], columns),
  )
  for i in range(length, count):
    state = append(state, **jax.tree.map(lambda x, i=i: x[:, i], columns))
  bias = np.linspace(1, 0, state.capacity + 1, dtype=np.float32)
  scores = np.einsum('bcd,bld->bcl', query, keys[:, -length:]) / 2
  scores += bias[length - np.arange(length)]
  return LongRows(state, query, bias, scores)
