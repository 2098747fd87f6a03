"""Gradients of the roles, against plain differentiation of two copies."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.training import state as train_state
from dare_jax.training import state_parts
from dare_jax.training.roles import gradient_statistics
from tests.models import examples

_COUNTS = {'item': np.arange(40), 'category': np.arange(9)}


@functools.cache
def _trainer(name='twin', observe=True, **options):
  return train_state.Trainer(
    examples.build(name), examples.optim(**options), 10, None, observe
  )


@functools.cache
def _observed():
  """The state after one step, the roles' gradients at it, by plain autodiff."""
  batch = examples.make_batch()
  trainer = _trainer()
  state = trainer.init(0, batch, _COUNTS)
  dare = examples.build('dare')
  encoder = {
    name.replace('shared', role): np.array(table)
    for name, table in state.tables['encoder'].items()
    for role in ('attention', 'representation')
  }
  variables = {
    'params': jax.tree.map(np.array, state.params),
    'batch_stats': jax.tree.map(np.array, state.batch_stats),
    'tables': {'encoder': encoder},
  }
  grads = examples.measure(dare, variables, batch).grads['tables']['encoder']
  state, _ = trainer.train_step(state, batch)
  return jax.device_get(state), jax.tree.map(np.asarray, grads)


@pytest.mark.parametrize('field', ['item', 'category', 'time'])
def test_norms_and_cosines_of_plain_autodiff(field):
  state, grads = _observed()
  a, r = (grads[f'{field}_{role}'] for role in ('attention', 'representation'))
  norm = np.linalg.norm
  both = (norm(a, axis=1) > 0) & (norm(r, axis=1) > 0)
  of_rows = np.sum(a * r, axis=1)[both]
  of_rows = of_rows / norm(a[both], axis=1) / norm(r[both], axis=1)
  expected = {
    'attention_norm': norm(a),
    'representation_norm': norm(r),
    'attention_row_norm': norm(a, axis=1).mean(),
    'representation_row_norm': norm(r, axis=1).mean(),
    'cosine': np.sum(a * r) / norm(a) / norm(r),
    'row_cosine': of_rows.mean(),
    'row_conflict': np.mean(of_rows < 0),
    'table_conflict': float(np.sum(a * r) < 0),
    'conflict': float(of_rows.mean() < 0),
  }
  found = gradient_statistics.summarize(state.sums, [f'{field}_shared'])
  for name, value in expected.items():
    np.testing.assert_allclose(
      found[f'{field}_shared/{name}'], value, rtol=1e-4, atol=1e-6, err_msg=name
    )
  histogram = state.observed.histograms[f'{field}_shared']
  edges = np.linspace(-1, 1, gradient_statistics.BINS + 1)
  for row, name in enumerate(gradient_statistics.HISTOGRAMS):
    counts, _ = np.histogram([expected[name]], edges)
    np.testing.assert_array_equal(histogram[row], counts)
  sums = state.observed.sums[f'{field}_shared']
  assert sums.shape == (len(a), 5)  # Each id is a group of its own.
  np.testing.assert_array_equal(sums[:, 0], both)
  np.testing.assert_allclose(sums[both, 2], of_rows, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(sums[:, 1].sum(), np.sum(of_rows < 0))
  np.testing.assert_allclose(sums[:, 3], norm(a, axis=1), rtol=1e-4, atol=1e-8)
  np.testing.assert_allclose(sums[:, 4], norm(r, axis=1), rtol=1e-4, atol=1e-8)


def _train(observe, **options):
  """Five steps on tables that all begin the same."""
  batches = [examples.make_batch(seed) for seed in range(5)]
  trainer = _trainer(observe=observe, **options)
  state = trainer.init(0, batches[0], _COUNTS)
  begin = _trainer().init(0, batches[0], _COUNTS)
  begin = _trainer().variables(begin)['tables']['encoder']
  stored = trainer.tables.from_ids(jax.tree.map(jnp.array, begin))
  state, losses = state.replace(tables={'encoder': stored}), []
  for batch in batches:
    state, loss = trainer.train_step(state, batch)
    losses.append(float(loss))
  return losses, jax.device_get(state)


@pytest.mark.slow
def test_losses_and_tables_stay_as_they_are():
  losses, plain = _train(False)
  found, observed = _train(True)
  np.testing.assert_allclose(found, losses, rtol=0, atol=1e-5)
  assert plain.seen is None
  assert float(observed.sums['gradients/item_shared/defined']) == 5
  both = observed.observed.sums['item_shared'][:, 0]
  assert both[0] == 0 and both.sum() > 20  # Row 0 is padding.
  for name, table in plain.tables['encoder'].items():
    np.testing.assert_allclose(
      observed.tables['encoder'][name], table, rtol=0, atol=1e-4
    )


@pytest.mark.slow
def test_rows_of_a_split_table_are_seen_as_those_of_a_whole_one():
  """A first step is the same with either optimizer; later ones are not."""
  batch = examples.make_batch()
  seen, begin = [], None
  for options in ({}, {'tables': 'lazy_adam', 'row_sparse_from': 20}):
    trainer = _trainer(**options)
    state = trainer.init(0, batch, _COUNTS)
    begin = begin or jax.tree.map(jnp.array, state.tables['encoder'])
    stored = trainer.tables.from_ids(jax.tree.map(jnp.array, begin))
    state = state.replace(tables={'encoder': stored})
    state, _ = trainer.train_step(state, batch)
    seen.append(jax.device_get((state.observed.sums, state.sums)))
  for one, other in zip(*map(jax.tree.leaves, seen), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_groups_of_large_tables_are_of_ids_that_occur_as_often():
  counts = np.zeros(40_000, int)
  counts[:6] = [1, 2, 3, 4, 7, 8]
  group, number = gradient_statistics.groups(counts)
  assert group[:7].tolist() == [1, 2, 2, 3, 3, 4, 0]
  assert number == 33


def test_refusals():
  with pytest.raises(errors.UsageError, match='train.observe_gradients=True'):
    _trainer('dare')
  with pytest.raises(errors.UsageError, match='serves both roles'):
    _trainer('twin_4e')
  with pytest.raises(errors.UsageError, match='does not use scores'):
    _trainer('sdim')


def test_states_without_observation_are_saved_as_ever():
  """A field more, even an empty one, and no older checkpoint can be read."""
  fields = [f.name for f in dataclasses.fields(state_parts.TrainState)]
  assert fields == [
    'step', 'params', 'tables', 'batch_stats', 'dense_slots', 'table_slots',
    'sums', 'constants', 'clusters',
  ]  # fmt: skip
