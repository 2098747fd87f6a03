"""The mean of a history in the heads: against the reference, and served."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.models import history_mean
from dare_jax.serving import user_state
from tests.models import examples
from tests.models import reference
from tests.models import reference_check


def _example(name: str, **options: Any) -> Any:
  model = examples.build(name, history_mean=True, **options)
  batch = examples.make_batch(5)
  if 'num_clusters' in options:
    batch = examples.with_clusters(batch, options['num_clusters'])
  # One moment sees nothing.
  batch = batch.replace(end=batch.end.at[0, 0].set(0))
  return model, examples.make_variables(model, batch), batch


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('dare', {}),
    ('dare', {'only_product': True}),
    ('twin_no_tr', {'match_fields': ('item',)}),
    ('dare', {'plan': 'projected_concat'}),
    ('twin_v2', {'num_clusters': 3}),
    ('sdim', {'hash_bits': 12}),
  ],
  ids=['dare', 'only_product', 'matches', 'projected', 'twin_v2', 'sdim'],
)
@pytest.mark.quick_cases('dare')
def test_equals_the_reference(name, options):
  reference_check.assert_equal(*_example(name, **options))


def test_the_gradient_of_a_row_agrees_with_the_reference_s_differences():
  model, variables, batch = _example('dare', aux_head=False)
  with jax.enable_x64(True):
    variables, batch = examples.to_float64((variables, batch))
    grads = examples.measure(model, variables, batch).grads
    table = np.asarray(variables['tables']['encoder']['item_representation'])
    item = int(batch.history.ids['item'][1, -1])

    def loss(size: float) -> float:
      other = table.copy()
      other[item, 0] += size
      encoder = variables['tables']['encoder'] | {'item_representation': other}
      moved = {**variables, 'tables': {'encoder': encoder}}
      slow = reference.rank(model, moved, batch, train=True)
      return reference_check.loss_of(slow, batch)

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    own = grads['tables']['encoder']['item_representation'][item, 0]
    np.testing.assert_allclose(own, slope, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_a_few_windows_at_a_time_change_nothing():
  parts, whole = reference_check.assert_same_by_windows(*_example('dare'))
  chex.assert_trees_all_close(parts.output, whole.output, rtol=1e-4, atol=5e-5)


def test_search_then_score_equals_the_call():
  model, variables, batch = _example('dare')

  @jax.jit
  def in_parts(variables, batch):
    keys = model.apply(variables, batch.history, method='encode_history')
    found = model.apply(variables, keys, batch, method='search')
    return model.apply(variables, batch, found, method='score')

  logits = in_parts(variables, batch)
  expected = examples.predict(model, variables, batch)
  np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_a_result_without_its_mean_is_refused():
  model, variables, batch = _example('dare')
  found = examples.evaluate(model, variables, batch).output.search
  with pytest.raises(ValueError, match='Ranker.encode_mean'):
    model.apply(variables, batch, found.replace(mean=None), method='score')


def test_the_mean_of_a_history_alone_is_that_of_its_last_moment():
  model, variables, batch = _example('dare')
  encode = jax.jit(lambda *x: model.apply(*x, method='encode_mean'))
  mean = encode(variables, batch.history)
  length = batch.history.mask.shape[1]
  last = batch.replace(end=jnp.full_like(batch.end, length), start=None)
  found = examples.evaluate(model, variables, last).output.search
  np.testing.assert_allclose(mean, found.mean[:, 0], rtol=1e-5, atol=1e-6)


def test_the_preset_matches_every_field():
  vocab = examples.VOCAB | {'brand': 4}
  preset = examples.build('dare_match_mean', vocab_sizes=vocab)
  config = preset.config
  assert config.match_fields == ('item', 'category', 'brand')
  assert config.history_mean
  assert examples.build('dare', match_fields=('all',)).config.match_fields
  assert config.content[-1].attention_dim == 4
  off = {'match_fields': ('none',), 'history_mean': False, 'further_dim': 3}
  dare = examples.build('dare', vocab_sizes=vocab)
  assert examples.build('dare_match_mean', vocab_sizes=vocab, **off) == dare


def test_narrow_vectors_are_summed_wide():
  content = jnp.full((1, 4096, 1), 1.01, jnp.bfloat16)
  mean = history_mean.of_moments(content, jnp.ones((1, 1, 4096), bool))
  assert mean.dtype == jnp.bfloat16
  np.testing.assert_array_equal(mean[0, 0], content[0, 0])


def test_cached_keys_with_the_mean_score_as_the_call():
  model, variables, batch = _example('dare')
  history, length = batch.history, batch.history.mask.shape[1]
  last = batch.replace(end=jnp.full_like(batch.end, length), start=None)
  first = jax.tree.map(lambda x: x[:, :1], last.targets)
  last = last.replace(end=last.end[:, :1], targets=first)

  @jax.jit
  def serve(variables):
    apply = functools.partial(model.apply, variables)
    keys = apply(history, method='encode_history')
    state = user_state.build(keys, history.mask)
    query, bias = apply(first.ids, state.capacity, method='encode_targets')
    found = user_state.search(state, query[:, 0], bias, model.config.top_k)
    mean = apply(history, method='encode_mean')
    found = user_state.in_windows(found, length).replace(mean=mean[:, None])
    return apply(last, found, method='score'), apply(last).logits

  np.testing.assert_allclose(*serve(variables), rtol=1e-5, atol=1e-5)
