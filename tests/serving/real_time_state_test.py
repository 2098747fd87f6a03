"""Real time from cached keys: as the ranker has it, in every precision."""

from __future__ import annotations

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.search import gaps
from dare_jax.serving import user_state
from tests.models import examples
from tests.models import real_time_parts
from tests.models import real_time_test
from tests.serving import state_cases


class RealTimeStateTest(parameterized.TestCase):
  @parameterized.product(
    precision=user_state.PRECISIONS,
    case=[(2, (), False), (50, ('item',), True)],
  )
  @pytest.mark.quick_cases('3')
  def test_appended_and_scored_as_the_model_does(self, precision, case):
    candidates, fields, apart = case
    model = examples.build(
      vocab_sizes=state_cases.VOCAB,
      real_time=('gap', 'weekday', 'hour'),
      match_fields=fields,
      top_k=state_cases.K,
    )
    batch = real_time_test.with_times(state_cases.make_batch(candidates))
    variables = examples.make_variables(model, batch)
    found = state_cases.found_in_state(
      model, variables, batch, precision, apart
    )
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
      examples.call(model, variables, 'score', batch, found),
      expected.logits,
      rtol=1e-5,
      atol=1e-5,
    )

  @parameterized.product(precision=user_state.PRECISIONS, case=state_cases.LONG)
  @pytest.mark.quick_cases('0')
  def test_long_rows_are_ranked_with_gaps(self, precision, case):
    length, newest = case
    rng = np.random.default_rng(length)
    users = state_cases.USERS
    time = rng.integers(0, 10**5, (users, length + newest)).cumsum(1)
    time = time.astype(np.int32)
    now = time[:, -1] + np.array([0, 40_000], np.int32)
    of_kind = rng.normal(size=gaps.KINDS).astype(np.float32)
    rows = state_cases.long_rows(precision, length, time=time)
    gap = now[:, None] - time[:, -length:]
    kind = [
      real_time_parts.range_of(x) * gaps.PHASES + real_time_parts.phase(x)
      for x in gap.ravel().tolist()
    ]
    found, best = rows.check(
      rows.scores + of_kind[kind].reshape(users, 1, length),
      gaps=gaps.GapScores(now, of_kind),
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
