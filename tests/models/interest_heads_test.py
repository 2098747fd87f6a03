"""Further heads over what was found: a slow twin, plans, searches, serving."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import types
from dare_jax.models import interest_heads
from tests.models import examples

_HEADS = interest_heads.InterestHeads(2)
_apply = jax.jit(_HEADS.apply)


def _found(seed=0, k=4, d=3, t=2):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.normal(size=(2, 1, 2, *shape)))
  mask = jnp.asarray(rng.random((2, 1, 2, k)) < 0.7).at[0, 0, 0].set(False)
  zeros = jnp.zeros(mask.shape, jnp.int32)
  result = types.SearchResult(zeros, draw(k), mask, zeros)
  values = aggregate.Values(draw(k, d), draw(k, t))
  variables = {
    'params': {
      'query': {'kernel': jnp.asarray(rng.normal(size=(d, 2 * d)))},
      'score_scale': jnp.asarray(rng.normal(size=2)),
      'gate': jnp.asarray(rng.normal(size=(2, d + t))),
    }
  }
  return variables, (draw(d + t), result, values, draw(d))


def _slowly(variables, interest, result, values, target):
  """One target, one head, one behavior after the other."""
  params = jax.tree.map(np.asarray, variables['params'])
  mask, scores, target = map(np.asarray, (result.mask, result.scores, target))
  content, time = np.asarray(values.content), np.asarray(values.time)
  out = np.array(interest)
  width = target.shape[-1]
  kernel = params['query']['kernel'].reshape(width, 2, width)
  for place in np.ndindex(out.shape[:-1]):
    kept = np.flatnonzero(mask[place])
    for head in range(2):
      query = target[place] @ kernel[:, head]
      power = {
        i: np.exp(
          query @ content[place][i] / np.sqrt(width)
          + params['score_scale'][head] * float(scores[place][i])
        )
        for i in kept
      }
      for i in kept:
        row = np.append(content[place][i], time[place][i])
        share = power[i] / sum(power.values())
        out[place] += params['gate'][head] * share * row
  return out


def test_equals_the_slow_twin():
  variables, inputs = _found()
  np.testing.assert_allclose(
    _apply(variables, *inputs), _slowly(variables, *inputs), rtol=1e-5
  )


def test_nothing_found_adds_nothing_and_has_a_gradient():
  variables, (interest, result, values, target) = _found()
  result = dataclasses.replace(result, mask=jnp.zeros_like(result.mask))

  def call(variables):
    return _apply(variables, interest, result, values, target)

  np.testing.assert_array_equal(call(variables), interest)
  grads = jax.jit(jax.grad(lambda v: jnp.sum(call(v) ** 2)))(variables)
  assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(grads))


def test_whole_windows_agree_with_rows_of_each_target():
  variables, (interest, result, _, target) = _found(k=3)
  rng = np.random.default_rng(4)
  content, rows = rng.normal(size=(2, 3, 3)), rng.normal(size=(4, 2))
  end = jnp.full((2, 1), 3, jnp.int32)
  whole = aggregate.Values(
    jnp.asarray(content), aggregate.CountedBack(jnp.asarray(rows), end)
  )
  apart = aggregate.Values(
    jnp.asarray(np.broadcast_to(content[:, None, None], (2, 1, 2, 3, 3))),
    jnp.asarray(np.broadcast_to(rows[3:0:-1], (2, 1, 2, 3, 2))),
  )
  found = [
    _apply(variables, interest, result, values, target)
    for values in (whole, apart)
  ]
  np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize('name', ['dare', 'twin', 'din', 'twin_v2'])
@pytest.mark.quick_cases('dare')
def test_begins_as_the_model_without_them_and_moves(name):
  batch = examples.make_batch(0)
  plain, wide = (examples.build(name, interest_heads=heads) for heads in (1, 3))
  variables = jax.jit(wide.init)(jax.random.key(0), batch)
  own = variables['params']['more_heads']
  without = dict(variables['params'])
  del without['more_heads']
  np.testing.assert_array_equal(
    jax.jit(plain.apply)({**variables, 'params': without}, batch).logits,
    jax.jit(wide.apply)(variables, batch).logits,
  )
  assert own['score_scale'].shape == (2,)

  def loss(params):
    logits = wide.apply({**variables, 'params': params}, batch).logits
    return jnp.sum(logits**2)

  grads = jax.jit(jax.grad(loss))(variables['params'])['more_heads']
  assert np.any(np.asarray(grads['gate']) != 0)


@pytest.mark.parametrize('plan', embeddings.PLANS)
def test_every_plan_carries_them(plan):
  options = {'plan': plan}
  if embeddings.PLANS[plan].shares_roles:
    options['attention_dim'] = options['representation_dim'] = 3
  model = examples.build('dare', interest_heads=2, **options)
  batch = examples.make_batch(0)
  found = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), batch)
  )
  assert found[0].logits.shape == batch.targets.label.shape
  assert 'more_heads' in found[1]['params']


def test_an_aggregation_without_scores_is_refused():
  with pytest.raises(ValueError, match='interest_heads=2: model.aggregation='):
    examples.build('sdim', interest_heads=2)
  with pytest.raises(ValueError, match='interest_heads=0: expected 1 or more'):
    examples.build('dare', interest_heads=0)
