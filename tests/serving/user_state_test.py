"""Searching from cached keys: against the ranker, and against rebuilding."""

from __future__ import annotations

import functools
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.serving import ranking
from dare_jax.serving import state_check
from dare_jax.serving import user_state
from tests.models import examples

_USERS, _LENGTH, _WIDTH, _K = 3, 144, 5, 4
# Of narrow keys, as many are chosen first as make rows long, or short.
_KEPT = (4, 5)
_search = jax.jit(user_state.search, static_argnames='k')
_build = jax.jit(
  user_state.build, static_argnames=('precision', 'history_length')
)
_append = jax.jit(user_state.append, donate_argnums=0)


def _draw(seed, candidates=2, length=_LENGTH):
  rng = np.random.default_rng(seed)
  # Few distinct keys and positions: many ties that recency must break.
  few = rng.normal(size=(6, _WIDTH)).astype(np.float32)
  keys = few[rng.integers(0, 6, (_USERS, length))]
  query = rng.normal(size=(_USERS, candidates, _WIDTH)).astype(np.float32)
  bias = np.repeat(rng.normal(size=21), 7)[: _LENGTH + 1].astype(np.float32)
  return keys, query, bias


def _slow(keys, query, bias, count, k):
  """The distances of the k best, best first, for keys oldest first."""
  length = len(keys)
  distance = length - np.arange(length)
  scores = keys @ query * len(query) ** -0.5 + bias[distance]
  seen = np.flatnonzero(distance <= count)
  # Rounded: equal in exact arithmetic is what the test calls a tie.
  best = np.lexsort((distance[seen], -np.round(scores[seen], 5)))
  return distance[seen][best][:k]


# Of every 18 cases of a precision, those of two candidates.
_OF_TWO = [str(18 * p + n) for p in range(3) for n in range(6, 12)]


class UserStateTest(parameterized.TestCase):
  @parameterized.product(
    precision=user_state.PRECISIONS,
    candidates=[1, 2, 9],
    appended=[0, 7, 160],
    k=_KEPT,
  )
  @pytest.mark.quick_cases(*_OF_TWO)
  def test_finds_what_sorting_finds(self, precision, candidates, appended, k):
    keys, query, bias = _draw(appended, candidates, _LENGTH + appended)
    counts = [0, 3, _LENGTH]
    mask = np.arange(_LENGTH) >= _LENGTH - np.array(counts)[:, None]
    state = _build(keys[:, :_LENGTH], mask, precision=precision)
    for i in range(_LENGTH, _LENGTH + appended):
      state = _append(state, keys[:, i])
    found = jax.device_get(_search(state, query, bias, k=k))
    assert found.indices.shape == (_USERS, 1, candidates, k)
    for user, candidate in np.ndindex(_USERS, candidates):
      count = min(counts[user] + appended, _LENGTH)
      window = keys[user, -_LENGTH:]
      expected = _slow(window, query[user, candidate], bias, count, k)
      kept = found.mask[user, 0, candidate]
      assert kept.tolist() == [i < len(expected) for i in range(k)]
      distance = found.distance[user, 0, candidate]
      assert distance[kept].tolist() == expected.tolist()

  @parameterized.parameters(*user_state.PRECISIONS)
  def test_appending_equals_rebuilding(self, precision):
    keys, query, bias = _draw(5, 3, _LENGTH + 20)
    mask = np.ones((_USERS, _LENGTH), bool)
    state = _build(keys[:, :_LENGTH], mask, precision=precision)
    for i in range(_LENGTH, _LENGTH + 20):
      state = _append(state, keys[:, i])
    rebuilt = _build(keys[:, -_LENGTH:], mask, precision=precision)
    rolled = np.roll(np.asarray(state.keys), -20, axis=-1)
    np.testing.assert_array_equal(rolled, rebuilt.keys)
    appended, whole = (_search(s, query, bias, k=_K) for s in (state, rebuilt))
    np.testing.assert_array_equal(appended.distance, whole.distance)
    np.testing.assert_allclose(appended.scores, whole.scores, rtol=1e-6)

  def test_float32_equals_the_ranker_s_search(self):
    model = examples.build('dare', top_k=5)
    batch = examples.make_batch(moments=1, candidates=3, length=_LENGTH)
    batch = batch.replace(end=np.full_like(batch.end, _LENGTH), start=None)
    variables = examples.init(model, batch)
    call = functools.partial(examples.call, model, variables)
    keys = call('encode_history', batch.history)
    expected = call('search', keys, batch)
    query, bias = call('encode_targets', batch.targets.ids, _LENGTH)
    state = _build(keys, batch.history.mask)
    found = _search(state, np.asarray(query)[:, 0], bias, k=5)
    found, expected = jax.device_get((found, expected))
    mask = expected.mask
    np.testing.assert_array_equal(found.mask, mask)
    for field in ('indices', 'distance'):
      np.testing.assert_array_equal(
        getattr(found, field)[mask], getattr(expected, field)[mask]
      )
    np.testing.assert_allclose(
      found.scores[mask], expected.scores[mask], rtol=1e-5, atol=1e-6
    )

  def test_appended_and_scored_as_the_model_does(self):
    """As docs/searching.md says to serve: the same logits."""
    model = examples.build('dare', top_k=5)
    batch = examples.make_batch(moments=1, candidates=3, length=_LENGTH)
    padding = np.array([9, 0, 3, 134, 138, 70])[:, None]
    mask = np.arange(_LENGTH)[None] >= padding[: len(batch.end)]
    history = batch.history.replace(mask=mask)
    batch = batch.replace(
      history=history, end=np.full_like(batch.end, _LENGTH), start=None
    )
    variables = examples.init(model, batch)
    call = functools.partial(examples.call, model, variables)
    keys = np.asarray(call('encode_history', history))
    state = _build(keys[:, :-6], mask[:, :-6], history_length=_LENGTH)
    for i in range(_LENGTH - 6, _LENGTH):
      state = _append(state, keys[:, i])
    query, bias = call('encode_targets', batch.targets.ids, state.capacity)
    found = _search(state, np.asarray(query)[:, 0], bias, k=5)
    found = user_state.in_windows(found, _LENGTH)
    expected = examples.evaluate(model, variables, batch).output
    expected = jax.device_get(expected)
    np.testing.assert_array_equal(found.mask, expected.search.mask)
    is_known = expected.search.mask[..., 0]
    np.testing.assert_allclose(
      np.asarray(call('score', batch, found))[is_known],
      expected.logits[is_known],
      rtol=1e-5,
      atol=1e-7,
    )

  @parameterized.product(
    precision=user_state.PRECISIONS, rows=[1, 2], candidates=[2, 9]
  )
  @pytest.mark.quick_cases('0', '7')
  def test_in_turns_equals_at_once(self, precision, rows, candidates):
    keys, query, bias = _draw(1, candidates)
    state = _build(keys, np.ones((_USERS, _LENGTH), bool), precision=precision)
    whole = _search(state, query, bias, k=_K)
    chunk = 4 * _LENGTH * rows
    anew = jax.jit(lambda *args: user_state.search(*args, _K))
    with mock.patch.object(ranking, '_CHUNK_BYTES', chunk):
      parts = anew(state, query, bias)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-5, atol=1e-6)

  @parameterized.product(precision=['bfloat16', 'int8'], candidates=[1, 9])
  def test_narrow_scores_are_near(self, precision, candidates):
    keys, query, _ = _draw(2, candidates)
    state = _build(keys, np.ones((_USERS, _LENGTH), bool), precision=precision)
    scores = jax.jit(ranking.content_scores)(state, query)
    expected = np.einsum('bcd,bld->bcl', query, keys)
    # Half a step of each number, at most: 2^-9 of it, or 1 / 254 of the
    # largest of its vector, which both vectors have in int8.
    size = np.abs(query).max(-1)[..., None] * np.abs(keys).sum(-1)[:, None]
    other = np.abs(query).sum(-1)[..., None] * np.abs(keys).max(-1)[:, None]
    bound = (size + other) / 250 if precision == 'int8' else size / 500
    assert (np.abs(scores - expected) <= bound).all()
    assert not np.array_equal(scores, expected)

  @parameterized.parameters(*user_state.PRECISIONS)
  def test_more_than_the_capacity_is_refused(self, precision):
    keys = jnp.ones((2, 16, 4))
    state = user_state.build(keys, jnp.ones((2, 16), bool), precision)
    with self.assertRaisesRegex(ValueError, 'top_k=17: expected 1 to .* 16'):
      user_state.search(state, jnp.ones((2, 1, 4)), jnp.zeros(17), k=17)

  @parameterized.parameters(
    (lambda s: user_state.append(s, jnp.ones((1, 4))), r'keys \(1, 4\)'),
    (lambda s: user_state.append(s, jnp.ones((2, 3))), r'expected \(2, 4\)'),
    (
      lambda s: user_state.append(s, jnp.ones((2, 4)), jnp.ones(2, int)),
      'holds no categories',
    ),
    (
      lambda s: user_state.search(s, jnp.ones((2, 1, 3)), jnp.zeros(17), 1),
      r'expected \[2 users, candidates, 4\]',
    ),
    (
      lambda s: user_state.search(s, jnp.ones((1, 1, 4)), jnp.zeros(17), 1),
      r'query \(1, 1, 4\)',
    ),
    (
      # As it is; the tests' own checks of types come before those of search.
      lambda s: state_check.targets(
        s, jnp.ones((2, 1, 1, 4)), jnp.zeros(17), None
      ),
      'without the axis of moments',
    ),
    (
      lambda s: user_state.search(s, jnp.ones((2, 1, 4)), jnp.zeros(16), 1),
      'distances 0 to 16; .* length=state.capacity',
    ),
  )
  def test_what_does_not_fit_a_state_is_refused(self, call, told):
    state = user_state.build(jnp.ones((2, 16, 4)), jnp.ones((2, 16), bool))
    with self.assertRaisesRegex(ValueError, told):
      call(state)

  @parameterized.parameters(
    ([[1, 1], [1, 0]], 'mask of user 1: expected padding first'),
    ([[1], [1]], r'mask \(2, 1\): expected \(2, 2\)'),
    ([[1, 1]], r'mask \(1, 2\): expected \(2, 2\)'),
  )
  def test_a_mask_that_does_not_fit_is_refused(self, mask, told):
    with self.assertRaisesRegex(ValueError, told):
      state_check.histories(jnp.ones((2, 2, 4)), jnp.array(mask, bool), None)

  def test_a_precision_that_is_unknown_is_refused(self):
    with self.assertRaisesRegex(ValueError, "'int4': expected one of float32"):
      user_state.build(jnp.zeros((1, 16, 2)), jnp.ones((1, 16), bool), 'int4')


if __name__ == '__main__':
  absltest.main()
