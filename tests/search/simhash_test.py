"""Codes of signs against counting bits, and the search by them."""

from __future__ import annotations

import functools

from absl.testing import absltest
from absl.testing import parameterized
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import embeddings
from dare_jax import search
from tests.models import examples
from tests.models import reference
from tests.search import views


def _normal(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _at_angles(angles: np.ndarray, seed: int, width: int) -> np.ndarray:
  """Returns vectors at angles from the first axis of a random plane."""
  plane, _ = np.linalg.qr(_normal(seed, width, 2))
  x, y = plane[:, :1], plane[:, 1:]
  return (np.cos(angles) * x + np.sin(angles) * y).T.astype(np.float32)


class CodesTest(parameterized.TestCase):
  @parameterized.parameters(1, 7, 31, 32, 33, 64, 70)
  def test_packed_distance_counts_the_bits_that_differ(self, bits):
    directions = _normal(0, 5, bits)
    a, b = _normal(1, 4, 3, 5), _normal(2, 4, 3, 5)
    codes = [
      search.sign_codes(jnp.array(x), jnp.array(directions)) for x in (a, b)
    ]
    assert codes[0].shape == (4, 3, -(-bits // 32))
    assert codes[0].dtype == jnp.uint32
    found = search.hamming_distance(*codes)
    differ = (a @ directions > 0) != (b @ directions > 0)
    np.testing.assert_array_equal(found, differ.sum(axis=-1))

  def test_bits_lie_lowest_first_and_the_rest_is_zero(self):
    directions = _normal(3, 4, 40)
    x = _normal(4, 4)
    words = np.asarray(search.sign_codes(jnp.array(x), jnp.array(directions)))
    for bit, sign in enumerate((x @ directions > 0).tolist()):
      assert (words[bit // 32] >> (bit % 32)) & 1 == sign
    assert words[1] >> 8 == 0

  def test_a_code_is_of_the_direction_alone(self):
    x, directions = jnp.array(_normal(5, 6, 4)), jnp.array(_normal(6, 4, 50))
    np.testing.assert_array_equal(
      search.sign_codes(x, directions), search.sign_codes(8.0 * x, directions)
    )
    # But opposite vectors differ in every bit.
    opposite = search.sign_codes(-x, directions)
    distance = search.hamming_distance(
      search.sign_codes(x, directions), opposite
    )
    assert distance.tolist() == [50] * 6

  @parameterized.parameters(0.0, 0.3, 1.0, np.pi / 2, 2.5, np.pi)
  def test_the_share_of_bits_that_differ_is_the_angle_over_pi(self, angle):
    bits, width = 20_000, 6
    x = jnp.array(_at_angles(np.array([0.0, angle]), 7, width))
    directions = jnp.array(_normal(8, width, bits))
    codes = search.sign_codes(x, directions)
    share = int(search.hamming_distance(codes[0], codes[1])) / bits
    want = angle / np.pi
    sigma = np.sqrt(want * (1 - want) / bits)
    # Rounding may flip a bit or two of opposite vectors.
    assert abs(share - want) <= 4 * sigma + 2 / bits


class SimHashSearchTest(parameterized.TestCase):
  @parameterized.parameters(*views.SHAPES)
  def test_keeps_the_nearest_codes_and_of_equals_the_most_recent(self, *shape):
    view = views.make_view(0, *shape)
    # Four bits: nearly everything is a tie.
    result, attention, variables = views.find(
      search.SimHashSearch, view, hash_bits=4
    )
    directions = np.asarray(variables['constants']['directions'])
    query, keys = np.asarray(view.query), np.asarray(view.keys)
    scores = np.asarray(views.dot(view))
    for b, m, c in np.ndindex(*result.mask.shape[:3]):
      bits = query[b, m, c] @ directions > 0
      similar = {
        i: -int((bits != (keys[b, i] @ directions > 0)).sum())
        for i in np.flatnonzero(view.visible[b, m])
      }
      found = np.asarray(result.indices[b, m, c])[
        np.asarray(result.mask[b, m, c])
      ]
      assert found.tolist() == reference.top_k(similar, 3)
      np.testing.assert_array_equal(
        result.scores[b, m, c][: len(found)], scores[b, m, c][found]
      )
    np.testing.assert_array_equal(attention.scores, scores)

  def test_equal_behaviors_are_ties_that_go_to_the_most_recent(self):
    view = views.make_view(1, 1, 1, 2, 9)
    view = view.replace(
      keys=jnp.ones_like(view.keys), visible=jnp.arange(9)[None, None] < 7
    )
    result, _, _ = views.find(search.SimHashSearch, view)
    assert result.indices.tolist() == [[[[6, 5, 4]] * 2]]

  def test_many_bits_rank_by_angle(self):
    # 0.15 apart; the standard error of 20,000 bits is at most 0.012.
    angles = np.random.default_rng(2).permutation(0.1 + 0.15 * np.arange(20))
    view = views.make_view(2, 1, 1, 1, 20, 6)
    lengths = np.exp(_normal(3, 20, 1))
    view = view.replace(
      query=jnp.array(_at_angles(np.zeros(1), 4, 6))[None, None],
      keys=jnp.array(lengths * _at_angles(angles, 4, 6))[None],
      visible=jnp.ones((1, 1, 20), bool),
    )
    result, _, _ = views.find(
      search.SimHashSearch, view, top_k=20, hash_bits=20_000
    )
    np.testing.assert_array_equal(result.indices.ravel(), np.argsort(angles))

  def test_directions_are_fixed_and_the_choice_has_no_gradient(self):
    view = views.make_view(5)
    searcher = search.SimHashSearch(search.SearchOptions(top_k=3))
    init = jax.jit(searcher.init, static_argnums=2)
    variables = init(jax.random.key(0), view, views.dot)
    assert set(variables) == {'constants'}
    assert variables['constants']['directions'].shape == (4, 32)
    constant = jnp.ones((*view.query.shape[:3], view.keys.shape[1]))

    def total(variables, query, keys):
      changed = view.replace(query=query, keys=keys)
      # Scores that depend on nothing: what is left is the choice.
      result, _ = searcher.apply(variables, changed, lambda _: constant)
      return jnp.sum(result.scores * result.indices)

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    grads = gradient(variables, view.query, view.keys)
    assert not any(np.any(grad) for grad in jax.tree.leaves(grads))


def _with_one_side(tree):
  """What targets read and are mapped by becomes what behaviors are."""
  if not isinstance(tree, dict):
    return tree
  return {
    name: _with_one_side(tree.get(name.replace('_target', '_behavior'), x))
    for name, x in tree.items()
  }


_PLANS = [(plan, plan) for plan in embeddings.PLANS]


class PlansTest(parameterized.TestCase):
  """A behavior that is the target has its code, under each plan.

  Where a plan has tables or maps for either side, these are made equal.
  """

  @parameterized.named_parameters(*_PLANS)
  @pytest.mark.quick_cases('shared', 'decoupled', 'projected_concat')
  def test_a_behavior_that_is_the_target_is_found_first(self, plan):
    self._check_found_first(plan, use_time=True)

  @parameterized.named_parameters(*_PLANS)
  @pytest.mark.slow
  def test_it_is_found_first_without_time(self, plan):
    self._check_found_first(plan, use_time=False)

  def _check_found_first(self, plan, use_time):
    model, variables, batch = _repeating_targets(
      plan, use_time, search='simhash', hash_bits=64, top_k=2
    )
    call = functools.partial(examples.call, model, variables)
    keys = call('encode_history', batch.history)
    ids, length = batch.targets.ids, keys.shape[1]
    query, _ = call('encode_targets', ids, length)
    directions = variables['constants']['searcher']['directions']
    codes = [search.sign_codes(x, directions) for x in (query[:, 0], keys)]
    distance = np.asarray(
      search.hamming_distance(codes[0][:, :, None], codes[1][:, None])
    )
    # Candidate c is behavior c.
    candidates = query.shape[2]
    own = distance[:, np.arange(candidates), np.arange(candidates)]
    assert not own.any()
    result = examples.evaluate(model, variables, batch).output.search
    same = np.asarray(distance == 0)
    found = np.asarray(result.indices)[:, 0, :, 0]
    assert np.take_along_axis(same, found[..., None], axis=-1).all()

  @parameterized.named_parameters(*_PLANS)
  @pytest.mark.quick_cases('shared', 'decoupled', 'projected_concat')
  def test_it_is_in_the_target_s_bucket_in_every_round(self, plan):
    self._check_bucket(plan, use_time=True)

  @parameterized.named_parameters(*_PLANS)
  @pytest.mark.slow
  def test_it_is_in_the_bucket_without_time(self, plan):
    self._check_bucket(plan, use_time=False)

  def _check_bucket(self, plan, use_time):
    model, variables, batch = _repeating_targets(
      plan, use_time, search='all', aggregation='buckets', hash_bits=48
    )
    output = examples.evaluate(model, variables, batch).output
    weights = np.asarray(output.weights)[:, 0]
    same = np.arange(weights.shape[1])
    np.testing.assert_array_equal(weights[:, same, same], 1.0)
    assert weights.min() < 1.0


def _repeating_targets(plan, use_time, **options):
  """A model, its variables, and a batch whose candidates are behaviors."""
  model = examples.build(
    'dare', plan=plan, use_time=use_time, hash_width=3, **options
  )
  batch = examples.make_batch(moments=1, candidates=4, num_padding=(0,))
  batch = batch.replace(
    end=jnp.full_like(batch.end, batch.history.mask.shape[1]),
    targets=batch.targets.replace(
      ids={k: x[:, None, :4] for k, x in batch.history.ids.items()}
    ),
  )
  variables = examples.make_variables(model, batch)
  variables = flax.core.unfreeze(variables)
  return model, _with_one_side(variables), batch


if __name__ == '__main__':
  absltest.main()
