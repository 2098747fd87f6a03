"""States show what the pipeline shows: the last L behaviors, and no more."""

from __future__ import annotations

import dataclasses
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import trained
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.serving import ranking
from dare_jax.serving import user_state
from tests import tiny
from tests.models import examples

_LENGTH, _FIRST, _LAST, _USERS, _K = 20, 3, 29, 8, 5
_build = jax.jit(
  user_state.build,
  static_argnames=('precision', 'num_categories', 'history_length'),
)
_append = jax.jit(user_state.append)


def _search(state, query, bias, table, k):
  found = user_state.search(state, query[:, 0], bias, k, table)
  return user_state.in_windows(found, _LENGTH)


_find = jax.jit(_search, static_argnames='k')
_WAYS = {
  'at_once': {'_SHORT': ranking._SHORT},
  'two_stages': {'_SHORT': 0},
  'in_turns': {'_CHUNK_BYTES': 4 * 32},
}


@dataclasses.dataclass(frozen=True)
class _Served:
  """A model, and the pipeline's batches at each length of a few histories."""

  run: trained.Trained
  batches: dict
  expected: dict

  def call(self, method, *args):
    return examples.call(self.run.model, self.run.variables, method, *args)

  def state(self, precision='float32', apart=False, **options):
    """Of the first behaviors."""
    history = self.batches[_FIRST].history
    keys = self.call('encode_history', history, apart)
    if apart:
      options['category'] = history.ids['category']
      options['num_categories'] = len(self.call('encode_categories'))
    return _build(keys, history.mask, precision=precision, **options)

  def append(self, state, count, apart):
    """With the last behavior of `count`, as the next batch has it."""
    history = self.batches[count].history
    history = jax.tree.map(lambda x: x[:, -1:], history)
    keys = np.asarray(self.call('encode_history', history, apart))[:, 0]
    category = history.ids['category'][:, 0] if apart else None
    return _append(state, keys, category)

  def found(self, state, count, apart, k, find=_find):
    """What a search finds, for the targets of the batch of `count`."""
    ids = self.batches[count].targets.ids
    query, bias = self.call('encode_targets', ids, state.capacity, apart)
    table = self.call('encode_categories') if apart else None
    return jax.device_get(find(state, query, bias, table, k=k))


@pytest.fixture(scope='module')
def served(tmp_path_factory):
  root = tmp_path_factory.mktemp('served')
  tiny.write_log(root / 'log.csv')
  tiny.run(tiny.config(root, data__unknown_rate=0.0), root / 'run')
  run = trained.load(root / 'run')
  store = run.experiment.store
  offsets = np.asarray(store.behaviors.offsets)
  user = np.flatnonzero(np.diff(offsets) > _LAST)[:_USERS].astype(np.int32)
  assert len(user) == _USERS
  batches = {}
  for count in range(_FIRST, _LAST + 1):
    end = offsets[user] + count
    moments = splits.Moments(user, end, end, np.ones(_USERS, np.int32))
    made = pipeline.Pipeline(
      store, moments, 'test', run.experiment.options.data, seed=1
    )
    batches[count] = next(made.eval_batches(_USERS)).batch
  apply = jax.jit(run.model.apply)
  expected = {n: apply(run.variables, batch) for n, batch in batches.items()}
  expected = jax.device_get(expected)
  return _Served(run, batches, expected)


@pytest.mark.slow
@pytest.mark.parametrize('way', _WAYS)
@pytest.mark.parametrize('apart', [False, True])
@pytest.mark.parametrize('precision', user_state.PRECISIONS)
def test_appended_one_by_one_equals_the_pipeline(served, precision, apart, way):
  state = served.state(precision, apart)
  assert state.history_length == served.run.history_length == _LENGTH
  assert state.capacity > _LENGTH
  with mock.patch.multiple(ranking, **_WAYS[way]):
    # Compiled anew, as it is patched.
    find = jax.jit(lambda *args, k: _search(*args, k), static_argnames='k')
    for count in range(_FIRST, _LAST + 1):
      if count > _FIRST:
        state = served.append(state, count, apart)
      if _FIRST + 2 < count < _LENGTH - 1:
        continue  # Below the border, nothing new.
      found = served.found(state, count, apart, _K, find)
      expected = served.expected[count]
      mask = expected.search.mask
      np.testing.assert_array_equal(found.mask, mask)
      for field in ('indices', 'distance'):
        np.testing.assert_array_equal(
          getattr(found, field)[mask], getattr(expected.search, field)[mask]
        )
      logits = served.call('score', served.batches[count], found)
      np.testing.assert_allclose(
        logits, expected.logits, rtol=1e-4, atol=1e-5, err_msg=str(count)
      )


@pytest.mark.parametrize('count', [_LENGTH - 1, _LENGTH, _LENGTH + 1, _LAST])
@pytest.mark.parametrize('precision', user_state.PRECISIONS)
def test_the_border(served, precision, count):
  """Exactly `history_length` back is seen; one farther is not."""
  state = served.state(precision)
  for i in range(_FIRST + 1, count + 1):
    state = served.append(state, i, False)
  found = served.found(state, count, False, _LENGTH + 4)
  shown = min(count, _LENGTH)
  for distance, mask in zip(
    found.distance.reshape(-1, _LENGTH + 4),
    found.mask.reshape(-1, _LENGTH + 4),
    strict=True,
  ):
    assert sorted(distance[mask].tolist()) == list(range(1, shown + 1))


@pytest.mark.parametrize('length', [7, _LENGTH, 27, 64])
@pytest.mark.parametrize('apart', [False, True])
@pytest.mark.quick_cases('False-7', 'True-20', 'True-27', 'False-64')
def test_another_length_on_purpose(served, length, apart):
  """Shorter and longer than the keys; also where they were cut when built."""
  state = served.state(apart=apart, history_length=length)
  assert state.capacity == user_state.capacity_of(length)
  for count in range(_FIRST + 1, _LAST + 1):
    state = served.append(state, count, apart)
  shown = min(_LAST, length)
  k = min(shown + 2, state.capacity)
  found = served.found(state, _LAST, apart, k)
  assert found.mask.sum(-1).ravel().tolist() == (
    [shown] * np.prod(found.mask.shape[:-1])
  )
  assert found.distance[found.mask].max() == shown


@pytest.mark.parametrize('apart', [False, True])
def test_keys_longer_than_the_length_are_cut(served, apart):
  """Of windows longer than what the model was trained with, say."""
  history = served.batches[_LAST].history
  keys = np.asarray(served.call('encode_history', history, apart))
  options = {'category': history.ids['category']} if apart else {}
  cut = {name: x[:, -7:] for name, x in options.items()}
  given = _build(keys, history.mask, history_length=7, **options)
  expected = _build(keys[:, -7:], history.mask[:, -7:], **cut)
  tiny.assert_same_bits(given, expected)
  assert given.history_length == expected.history_length == 7


@pytest.mark.parametrize('length', [0, -3, 2.0, True, 'all'])
def test_a_length_that_is_none_is_refused(length):
  keys, mask = jnp.ones((2, 16, 4)), jnp.ones((2, 16), bool)
  with pytest.raises((ValueError, TypeError), match='history_length'):
    user_state.build.__wrapped__(keys, mask, history_length=length)
