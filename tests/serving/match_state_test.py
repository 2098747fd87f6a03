"""Match terms from cached keys: as the ranker has them, in every precision."""

from __future__ import annotations

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.search import matching as matching_lib
from dare_jax.serving import user_state
from tests.models import examples

_VOCAB = {'item': 6, 'category': 4}
_FIELDS = ('item', 'category')
_search = jax.jit(user_state.search, static_argnames='k')
_append = jax.jit(user_state.append)


class MatchStateTest(parameterized.TestCase):
  @parameterized.product(
    precision=user_state.PRECISIONS, case=[(2, False), (50, True)]
  )
  @pytest.mark.quick_cases('0', '3')
  def test_appended_and_scored_as_the_model_does(self, precision, case):
    candidates, apart = case
    model = examples.build(
      vocab_sizes=_VOCAB, match_fields=_FIELDS, top_k=3, attention_init=0.2
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
    variables = examples.init(model, batch)
    call = functools.partial(examples.call, model, variables)
    history = batch.history
    keys = call('encode_history', history, apart)
    category = history.ids['category'] if apart else None
    ids = {field: history.ids[field] for field in _FIELDS}
    column = lambda i: {field: x[:, i] for field, x in ids.items()}
    first = lambda x: None if x is None else x[:, :-2]
    state = user_state.build(
      keys[:, :-2],
      history.mask[:, :-2],
      precision,
      first(category),
      history_length=length,
      match_ids=jax.tree.map(first, ids),
    )
    for i in (length - 2, length - 1):
      own = None if category is None else category[:, i]
      state = _append(state, keys[:, i], own, column(i))
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
    )
    found = user_state.in_windows(found, length)
    expected = examples.evaluate(model, variables, batch).output
    np.testing.assert_array_equal(found.mask, expected.search.mask)
    for field, matches in expected.search.matches.items():
      own = found.matches[field]
      np.testing.assert_array_equal(own.count, matches.count)
      np.testing.assert_array_equal(own.distance, matches.distance)
    np.testing.assert_allclose(
      call('score', batch, found), expected.logits, rtol=1e-6, atol=1e-6
    )

  @parameterized.product(
    precision=user_state.PRECISIONS, case=[(300, 37), (2048, 0)]
  )
  @pytest.mark.quick_cases('0', '3')
  def test_long_rows_are_ranked_with_matches(self, precision, case):
    """By counting, also of groups of neighbours, in rings that begin anywhere.

    Long rows of narrow keys: 2 k are chosen by narrow scores.
    """
    length, newest = case
    rng = np.random.default_rng(length)
    users, candidates, k = 2, 150, 4
    keys = rng.normal(size=(users, length + newest, 4)).astype(np.float32)
    ids = rng.integers(0, 40, (users, length + newest)).astype(np.int32)
    query = rng.normal(size=(users, candidates, 4)).astype(np.float32)
    targets = rng.integers(2, 40, (users, 1, candidates)).astype(np.int32)
    state = user_state.build(
      jnp.asarray(keys[:, :length]),
      jnp.ones((users, length), bool),
      precision,
      match_ids={'item': jnp.asarray(ids[:, :length])},
    )
    for i in range(length, length + newest):
      state = _append(
        state, keys[:, i], match_ids={'item': jnp.asarray(ids[:, i])}
      )
    matching = matching_lib.Matching(
      {'item': jnp.asarray(targets)}, {'item': jnp.float32(1.5)}
    )
    bias = np.linspace(1, 0, state.capacity + 1, dtype=np.float32)
    found = _search(state, query, bias, k=k, matching=matching)
    keys, ids = keys[:, -length:], ids[:, -length:]
    scores = np.einsum('bcd,bld->bcl', query, keys) / 2
    scores += bias[length - np.arange(length)]
    same = ids[:, None] == targets[:, 0, :, None]
    scores += 1.5 * same
    best = np.argsort(-scores, axis=-1, kind='stable')[..., :k]
    np.testing.assert_array_equal(found.distance[:, 0], length - best)
    np.testing.assert_allclose(
      found.scores[:, 0],
      np.take_along_axis(scores, best, axis=-1),
      rtol=1e-5,
      atol=1e-5,
    )
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
