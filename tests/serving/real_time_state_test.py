"""Real time from cached keys: as the ranker has it, in every precision."""

from __future__ import annotations

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.search import gaps
from dare_jax.serving import user_state
from tests.models import examples
from tests.models import real_time_parts
from tests.models import real_time_test

_VOCAB = {'item': 6, 'category': 4}
_search = jax.jit(user_state.search, static_argnames='k')
_append = jax.jit(user_state.append)


class RealTimeStateTest(parameterized.TestCase):
  @parameterized.product(
    precision=user_state.PRECISIONS,
    case=[(2, (), False), (50, ('item',), True)],
  )
  @pytest.mark.quick_cases('0', '3')
  def test_appended_and_scored_as_the_model_does(self, precision, case):
    candidates, fields, apart = case
    model = examples.build(
      vocab_sizes=_VOCAB,
      real_time=('gap', 'weekday', 'hour'),
      match_fields=fields,
      top_k=3,
    )
    length = 16
    batch = examples.make_batch(
      vocab=_VOCAB,
      moments=1,
      candidates=candidates,
      length=length,
      num_padding=(0, 2, 13),
    )
    batch = batch.replace(end=jnp.full_like(batch.end, length))
    batch = real_time_test.with_times(batch)
    variables = examples.make_variables(model, batch)
    call = functools.partial(examples.call, model, variables)
    history = batch.history
    keys = call('encode_history', history, apart)
    category = history.ids['category'] if apart else None
    ids = {field: history.ids[field] for field in fields}
    first = lambda x: None if x is None else x[:, :-2]
    state = user_state.build(
      keys[:, :-2],
      history.mask[:, :-2],
      precision,
      first(category),
      history_length=length,
      match_ids=jax.tree.map(first, ids),
      time=history.time[:, :-2],
    )
    for i in (length - 2, length - 1):
      own = None if category is None else category[:, i]
      column = {field: x[:, i] for field, x in ids.items()}
      state = _append(state, keys[:, i], own, column, history.time[:, i])
    query, bias = call(
      'encode_targets', batch.targets.ids, state.capacity, apart
    )
    found = _search(
      state,
      query[:, 0],
      bias,
      k=3,
      category_keys=call('encode_categories') if apart else None,
      matching=call('encode_matches', batch.targets.ids),
      gaps=gaps.GapScores(batch.now[:, 0], call('encode_gaps')),
    )
    found = user_state.in_windows(found, length)
    expected = examples.evaluate(model, variables, batch).output
    search = expected.search
    np.testing.assert_array_equal(found.mask, search.mask)
    np.testing.assert_array_equal(found.since_last, search.since_last)
    np.testing.assert_array_equal(
      np.where(found.mask, found.gap, 0), np.where(search.mask, search.gap, 0)
    )
    for field, matches in search.matches.items():
      np.testing.assert_array_equal(found.matches[field].gap, matches.gap)
    np.testing.assert_allclose(
      call('score', batch, found), expected.logits, rtol=1e-5, atol=1e-5
    )

  @parameterized.product(
    precision=user_state.PRECISIONS, case=[(300, 37), (2048, 0)]
  )
  @pytest.mark.quick_cases('0', '3')
  def test_long_rows_are_ranked_with_gaps(self, precision, case):
    """By counting, also of groups of neighbours, in rings that begin anywhere.

    Long rows of narrow keys: 2 k are chosen by narrow scores.
    """
    length, newest = case
    rng = np.random.default_rng(length)
    users, candidates, k = 2, 150, 4
    keys = rng.normal(size=(users, length + newest, 4)).astype(np.float32)
    time = rng.integers(0, 10**5, (users, length + newest)).cumsum(1)
    time = time.astype(np.int32)
    now = time[:, -1] + np.array([0, 40_000], np.int32)
    query = rng.normal(size=(users, candidates, 4)).astype(np.float32)
    state = user_state.build(
      jnp.asarray(keys[:, :length]),
      jnp.ones((users, length), bool),
      precision,
      time=jnp.asarray(time[:, :length]),
    )
    for i in range(length, length + newest):
      state = _append(state, keys[:, i], time=jnp.asarray(time[:, i]))
    of_kind = rng.normal(size=gaps.KINDS).astype(np.float32)
    bias = np.linspace(1, 0, state.capacity + 1, dtype=np.float32)
    found = _search(
      state, query, bias, k=k, gaps=gaps.GapScores(now, jnp.asarray(of_kind))
    )
    keys, time = keys[:, -length:], time[:, -length:]
    scores = np.einsum('bcd,bld->bcl', query, keys) / 2
    scores += bias[length - np.arange(length)]
    gap = now[:, None] - time
    kind = [
      real_time_parts.bucket(x) * gaps.PHASES + real_time_parts.phase(x)
      for x in gap.ravel().tolist()
    ]
    scores += of_kind[kind].reshape(users, 1, length)
    best = np.argsort(-scores, axis=-1, kind='stable')[..., :k]
    np.testing.assert_array_equal(found.distance[:, 0], length - best)
    np.testing.assert_allclose(
      found.scores[:, 0],
      np.take_along_axis(scores, best, axis=-1),
      rtol=1e-5,
      atol=1e-5,
    )
    np.testing.assert_array_equal(
      found.gap[:, 0], gap[np.arange(users)[:, None, None], best]
    )
    np.testing.assert_array_equal(found.since_last[:, 0], gap[:, -1])

  def test_times_are_given_always_or_never(self):
    keys, mask = jnp.ones((1, 16, 2)), jnp.ones((1, 16), bool)
    query, bias = jnp.ones((1, 1, 2)), jnp.zeros(17)
    timed = user_state.build(keys, mask, time=jnp.zeros((1, 16), int))
    with self.assertRaisesRegex(ValueError, 'holds the times'):
      user_state.search(timed, query, bias, 1)
    with self.assertRaisesRegex(ValueError, 'holds the times'):
      user_state.append(timed, jnp.ones((1, 2)))
    plain = user_state.build(keys, mask)
    now = gaps.GapScores(jnp.zeros(1, int), jnp.zeros(gaps.KINDS))
    with self.assertRaisesRegex(ValueError, 'holds no times'):
      user_state.search(plain, query, bias, 1, gaps=now)
    with self.assertRaisesRegex(ValueError, r'times \(2,\)'):
      wrong = now.replace(now=jnp.zeros(2, int))
      user_state.search(timed, query, bias, 1, gaps=wrong)


if __name__ == '__main__':
  absltest.main()
