"""What a model does when it serves, as functions of plain arrays.

Each takes the variables first: name -> array, such as 'item_attention'. The
others take what a function before them has given, or arrays of ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import traverse_util
import jax.numpy as jnp

from dare_jax import embeddings
from dare_jax import models
from dare_jax import search as searches
from dare_jax import types
from dare_jax.bundle import arrays
from dare_jax.bundle import requests as requests_lib
from dare_jax.embeddings import scaled_rows
from dare_jax.search import gaps
from dare_jax.serving import user_state

_TABLES = 'tables/encoder/'
_TIME = requests_lib.TIME
Variables = Mapping[str, Any]
Tree = Mapping[str, Any]


class Served:
  """What a model does when it serves, as functions to be exported."""

  def __init__(self, model: models.Ranker, history_length: int) -> None:
    """Makes them.

    Args:
      model: the model that predicts.
      history_length: number of behaviors that the model was shown in training.
    """
    self._model = model
    self._length = history_length
    config = model.config
    self.fields = tuple(feature.name for feature in config.content)
    self.context_fields = tuple(feature.name for feature in config.context)
    self.match_fields = config.match_fields
    self.has_mean = config.history_mean
    # Those whose ids a search reads.
    self.slot_fields = self.fields if self.has_mean else self.match_fields
    self.reads_times = bool(config.real_time)
    self.has_gaps = 'gap' in config.real_time

  @property
  def has_cached_keys(self) -> bool:
    """Whether the search is by scores that cached keys give."""
    config = self._model.config
    mixes = embeddings.PLANS[config.plan].projection
    mixes_time = config.use_time and mixes is not None and not mixes.per_field
    by_keys = (config.search, config.scorer) == ('score', 'dot')
    return by_keys and not mixes_time and not config.keep_padding

  @property
  def keeps_all(self) -> bool:
    """Whether the search keeps all behaviors."""
    return searches.SEARCHES[self._model.config.search] is searches.FullSearch

  def predict(
    self,
    variables: Variables,
    history: Tree,
    count: Any,
    targets: Tree,
    real: Any,
    context: Tree,
  ) -> dict[str, Any]:
    """Returns logits and what was found.

    Args:
      variables: name -> array.
      history: field -> int32 [b, l], the most recent behavior last. Of a model
        with real time also 'time', as `types.History.time`.
      count: int32 [b], number of behaviors in each history.
      targets: field -> int32 [b, c].
      real: bool [b, c], False for candidates that only fill up.
      context: field -> int32 [b]; also 'time' of the moments, likewise.
    """
    length = next(iter(history.values())).shape[1]
    count = jnp.minimum(count, self._length)
    slot = jnp.arange(length, dtype=jnp.int32)[None]
    mask = slot >= length - count[:, None]
    past = _history(history, mask)
    batch = self._batch(past, targets, real, context)
    output = self._call(variables, batch)
    made = {'logit': output.logits[:, 0], 'weight': output.weights[:, 0]}
    if not self.keeps_all:
      made['distance'] = output.search.distance[:, 0]
      made['mask'] = output.search.mask[:, 0]
    return made

  def encode_history(
    self, variables: Variables, history: Tree, count: Any
  ) -> dict[str, Any]:
    """Returns search keys [b, d, l], the newest slot and the behaviors shown.

    Arguments as those of `predict`; there are as many slots.
    """
    length = next(iter(history.values())).shape[1]
    whole = _history(history)
    keys = self._call(variables, whole, method='encode_history')
    keys = jnp.swapaxes(keys.astype(jnp.float32), 1, 2)
    newest = jnp.zeros(count.shape, jnp.int32) + (length - 1)
    shown = jnp.minimum(count, self._length)
    return {'keys': keys, 'newest': newest, 'count': shown}

  def append(
    self, variables: Variables, state: Tree, behavior: Tree
  ) -> dict[str, Any]:
    """Returns a state with one more behavior of each user.

    Args:
      variables: name -> array.
      state: arrays by name, from `encode_history`.
      behavior: field -> int32 [b].
    """
    ids = {field: ids[:, None] for field, ids in behavior.items()}
    one = _history(ids)
    keys = self._call(variables, one, method='encode_history')[:, 0]
    users = user_state.append(self._state(state, {}), keys)
    count = jnp.minimum(users.count, users.capacity)
    return {'keys': users.keys, 'newest': users.newest, 'count': count}

  def search(
    self, variables: Variables, state: Tree, targets: Tree
  ) -> dict[str, Any]:
    """Returns the scores, distances and mask of what is found, [b, c, k].

    Of a model with match terms, also how often and how far back the targets
    occur: 'count/FIELD' and 'last/FIELD', [b, c]. Of one with gaps, how many
    seconds ago: 'gap' [b, c, k], 'since_last' [b] and 'ago/FIELD' [b, c]. Of
    one that sees the mean of a history, 'mean', [b, v].

    Args:
      variables: name -> array.
      state: arrays by name, from `encode_history`; besides them 'ids/FIELD',
        int32 [b, l] by slot, for each of `slot_fields`; with gaps also 'time',
        likewise, and 'now', int32 [b], the moments.
      targets: field -> int32 [b, c].
    """
    slots = {field: state[f'ids/{field}'] for field in self.slot_fields}
    users = self._state(
      state,
      {f: slots[f] for f in self.match_fields},
      state['time'] if self.has_gaps else None,
    )
    moments = {field: ids[:, None] for field, ids in targets.items()}
    query, bias = self._call(
      variables, moments, users.capacity, method='encode_targets'
    )
    matching = self._call(variables, moments, method='encode_matches')
    top_k = self._model.config.top_k
    # A program is for several platforms, and kernels lower for one alone.
    found = user_state.search(
      users,
      query[:, 0],
      bias,
      top_k,
      backend='plain',
      matching=matching,
      gaps=self._gaps(variables, state),
    )
    made = {
      'score': found.scores[:, 0],
      'distance': found.distance[:, 0],
      'mask': found.mask[:, 0],
    }
    for field, matches in found.matches.items():
      made[f'count/{field}'] = matches.count[:, 0]
      made[f'last/{field}'] = matches.distance[:, 0]
      if matches.gap is not None:
        made[f'ago/{field}'] = matches.gap[:, 0]
    if found.gap is not None and found.since_last is not None:
      made |= {'gap': found.gap[:, 0], 'since_last': found.since_last[:, 0]}
    if self.has_mean:
      shown = types.History(ids=slots, mask=user_state.shown(users))
      mean = self._call(variables, shown, method='encode_mean')
      made['mean'] = mean.astype(jnp.float32)
    return made

  def _gaps(self, variables: Variables, state: Tree) -> gaps.GapScores | None:
    if not self.has_gaps:
      return None
    bias = self._call(variables, method='encode_gaps')
    return gaps.GapScores(state['now'], bias)

  def score(
    self,
    variables: Variables,
    found_ids: Tree,
    found: Tree,
    targets: Tree,
    real: Any,
    context: Tree,
  ) -> dict[str, Any]:
    """Returns the logits [b, c] and the weights [b, c, k] of what was found.

    Args:
      variables: name -> array.
      found_ids: field -> int32 [b, c, k], ids of the behaviors found.
      found: arrays by name, from `search`.
      targets: field -> int32 [b, c].
      real: bool [b, c], False for candidates that only fill up.
      context: field -> int32 [b].
    """
    # Only its length is read.
    mask = jnp.zeros((real.shape[0], self._length), bool)
    history = types.History(ids={}, mask=mask)
    batch = self._batch(history, targets, real, context)
    part = {name: value[:, None] for name, value in found.items()}
    result = types.SearchResult(
      indices=part['distance'],
      scores=part['score'],
      mask=part['mask'],
      distance=part['distance'],
      matches={
        field: types.Matches(
          part[f'count/{field}'],
          part[f'last/{field}'],
          part.get(f'ago/{field}'),
        )
        for field in self.match_fields
      },
      mean=part['mean'] if self.has_mean else None,
      gap=part.get('gap'),
      since_last=part.get('since_last'),
    )
    found_ids = {f: ids[:, None] for f, ids in found_ids.items() if f != _TIME}
    logits, weights = self._call(
      variables, batch, result, found_ids, method='score_found'
    )
    return {'logit': logits[:, 0], 'weight': weights[:, 0]}

  def _call(self, variables: Variables, *args: Any, **options: Any) -> Any:
    return self._model.apply(nested(variables), *args, **options)

  def _state(
    self, state: Tree, slots: Tree, time: Any = None
  ) -> user_state.UserState:
    return user_state.UserState(
      keys=state['keys'],
      scale=None,
      exact=None,
      category=None,
      newest=state['newest'],
      count=state['count'],
      width=state['keys'].shape[1],
      precision='float32',
      history_length=self._length,
      match_ids=slots,
      time=time,
    )

  def _batch(
    self, history: types.History, targets: Tree, real: Any, context: Tree
  ) -> types.Batch:
    weight = real[:, None].astype(jnp.float32)
    users, length = history.mask.shape
    moments = {field: ids[:, None] for field, ids in context.items()}
    now = moments.pop(_TIME, None)
    return types.Batch(
      history=history,
      end=jnp.zeros((users, 1), jnp.int32) + length,
      targets=types.Targets(
        ids={field: ids[:, None] for field, ids in targets.items()},
        label=jnp.zeros_like(weight),
        weight=weight,
      ),
      context=moments,
      now=now,
    )


def _history(ids: Tree, mask: Any = None) -> types.History:
  """Returns histories as a model takes them, their times apart."""
  own = {field: values for field, values in ids.items() if field != _TIME}
  return types.History(ids=own, mask=mask, time=ids.get(_TIME))


def flat(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a model's variables by name.

  Tables have names of their own, such as 'item_attention'; the others that of
  their place, such as 'params/head/Dense_0/bias'.
  """
  named = traverse_util.flatten_dict(variables, sep='/')
  return {name.removeprefix(_TABLES): x for name, x in named.items()}


def nested(variables: Variables) -> dict[str, Any]:
  """Returns variables as a model takes them; the reverse of `flat`."""
  named = dict(variables)
  for name in [name for name in named if name.endswith(arrays.SCALE)]:
    scale = named.pop(name)
    whole = name.removesuffix(arrays.SCALE)
    named[whole] = scaled_rows.ScaledRows(named[whole], scale)
  placed = {n if '/' in n else _TABLES + n: x for n, x in named.items()}
  return dict(traverse_util.unflatten_dict(placed, sep='/'))
