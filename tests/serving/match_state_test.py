"""Match terms from cached keys: as the ranker has them, in every precision."""

from __future__ import annotations

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.search import matching as matching_lib
from dare_jax.serving import user_state
from tests.models import examples
from tests.serving import state_cases


class MatchStateTest(parameterized.TestCase):
  @parameterized.product(
    precision=user_state.PRECISIONS, case=[(2, False), (50, True)]
  )
  @pytest.mark.quick_cases('3')
  def test_appended_and_scored_as_the_model_does(self, precision, case):
    candidates, apart = case
    model = examples.build(
      vocab_sizes=state_cases.VOCAB,
      match_fields=('item', 'category'),
      top_k=state_cases.K,
      attention_init=0.2,
    )
    batch = state_cases.make_batch(candidates)
    variables = examples.init(model, batch)
    found = state_cases.found_in_state(
      model, variables, batch, precision, apart
    )
    expected = examples.evaluate(model, variables, batch).output
    np.testing.assert_array_equal(found.mask, expected.search.mask)
    for field, matches in expected.search.matches.items():
      own = found.matches[field]
      np.testing.assert_array_equal(own.count, matches.count)
      np.testing.assert_array_equal(own.distance, matches.distance)
    np.testing.assert_allclose(
      examples.call(model, variables, 'score', batch, found),
      expected.logits,
      rtol=1e-6,
      atol=1e-6,
    )

  @parameterized.product(precision=user_state.PRECISIONS, case=state_cases.LONG)
  @pytest.mark.quick_cases('0')
  def test_long_rows_are_ranked_with_matches(self, precision, case):
    length, newest = case
    rng = np.random.default_rng(length)
    users, candidates = state_cases.USERS, state_cases.CANDIDATES
    ids = rng.integers(0, 40, (users, length + newest)).astype(np.int32)
    targets = rng.integers(2, 40, (users, 1, candidates)).astype(np.int32)
    rows = state_cases.long_rows(precision, length, match_ids={'item': ids})
    same = ids[:, None, -length:] == targets[:, 0, :, None]
    matching = matching_lib.Matching(
      {'item': targets}, {'item': np.float32(1.5)}
    )
    found, _ = rows.check(rows.scores + 1.5 * same, matching=matching)
    np.testing.assert_array_equal(
      found.matches['item'].count[:, 0], same.sum(2)
    )

  def test_other_fields_are_refused(self):
    state = user_state.build(
      jnp.ones((1, 16, 2)),
      jnp.ones((1, 16), bool),
      match_ids={'item': jnp.ones((1, 16), int)},
    )
    query, bias = jnp.ones((1, 1, 2)), jnp.zeros(17)
    with self.assertRaisesRegex(ValueError, 'holds item, given were none'):
      user_state.search(state, query, bias, 1)
    with self.assertRaisesRegex(ValueError, 'holds item, given were none'):
      user_state.append(state, jnp.ones((1, 2)))
    wrong = matching_lib.Matching({'item': jnp.ones((1, 1, 2), int)})
    with self.assertRaisesRegex(ValueError, r"matching.ids\['item'\]"):
      user_state.search(state, query, bias, 1, matching=wrong)
    with self.assertRaisesRegex(ValueError, r"match_ids\['item'\] \(1, 3\)"):
      # The type checker of the tests would say it first.
      user_state.build.__wrapped__(
        jnp.ones((1, 16, 2)),
        jnp.ones((1, 16), bool),
        match_ids={'item': jnp.ones((1, 3), int)},
      )


if __name__ == '__main__':
  absltest.main()
