"""What a run has learned, taken into Python."""

import csv
import logging

import jax
import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax import trained
from dare_jax.data import splits
from dare_jax.logs import id_map
from tests import tiny


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('trained')
  tiny.write_log(root / 'log.csv')
  tiny.run(tiny.config(root), root / 'run')
  return root


@pytest.fixture(scope='module')
def run(root):
  return trained.load(root / 'run')


def test_predicts_what_the_run_predicted(root, run):
  apply = jax.jit(lambda batch: run.model.apply(run.variables, batch).logits)
  logits = [
    np.asarray(apply(item.batch))[item.batch.targets.weight > 0]
    for item in run.experiment.pipelines['test'].eval_batches(50)
  ]
  with np.load(root / 'run' / 'predictions_test.npz') as saved:
    np.testing.assert_allclose(
      np.sort(np.concatenate(logits)), np.sort(saved['logit']), atol=1e-5
    )


def test_reading_a_run_logs_nothing(root, caplog):
  trained.load(root / 'run')
  assert not caplog.records
  with pytest.raises(errors.UsageError, match='no such step|12345'):
    trained.load(root / 'run', 12345)
  assert not caplog.records
  logging.getLogger('absl').warning('as before')  # What others log is shown.
  assert [record.message for record in caplog.records] == ['as before']


def test_scores_raw_values_of_the_log(root, run):
  """As README says; the pipeline makes the same of the same moment."""
  store, options = run.experiment.store, run.experiment.options
  item = next(run.experiment.pipelines['test'].eval_batches(1))
  first = splits.make_splits(store, options.data)['test'].take(np.arange(1))
  name, end = store.raw_ids('user')[int(first.user[0])], int(first.end[0])
  with (root / 'log.csv').open() as log:
    rows = [row for row in csv.DictReader(log) if row['user_id'] == name]
  names = {field: store.raw_ids(field) for field in store.fields}
  candidates = {
    field: [names[field][int(i) - id_map.FIRST] for i in ids[0, 0]]
    for field, ids in item.batch.targets.ids.items()
  }
  past = {
    field: [row[f'{field}_id'] for row in rows[:end]] for field in store.fields
  }
  expected = jax.jit(run.model.apply)(run.variables, item.batch).logits[0, 0]
  np.testing.assert_allclose(
    run.score(past, candidates), expected, rtol=1e-5, atol=1e-6
  )
  one = {field: values[1:2] for field, values in candidates.items()}
  np.testing.assert_allclose(
    run.score(past, one), expected[1:2], rtol=1e-5, atol=1e-6
  )


def test_scores_without_a_history_and_without_candidates(run):
  nothing = {'item': [], 'category': []}
  one = {'item': ['i1'], 'category': ['c1']}
  assert np.isfinite(run.score(nothing, one)).all()
  assert run.score(one, nothing).shape == (0,)
  new = {'item': ['never seen'], 'category': ['never seen']}
  assert run.score(one, new) != run.score(one, one)


@pytest.mark.parametrize(
  ('history', 'candidates', 'context', 'told'),
  [
    ({'item': []}, {}, None, 'history: expected the fields item, category'),
    (
      {'item': ['i1'], 'category': []},
      {},
      None,
      'history: .* 1 of item, 0 of category',
    ),
    (
      {'item': [], 'category': []},
      {'item': [], 'category': [], 'brand': []},
      None,
      'candidates: .*, got item, category, brand',
    ),
    (
      {'item': 'i1', 'category': 'c10'},
      {},
      None,
      "raw values of 'item': str: expected a list",
    ),
    (
      {'item': 1, 'category': 1},
      {},
      None,
      "raw values of 'item': int: expected a list",
    ),
    (
      {'item': [], 'category': []},
      {'item': [], 'category': []},
      {'hour': 3},
      'context: expected the fields none, got hour',
    ),
  ],
)
def test_what_cannot_be_scored_is_refused(
  run, history, candidates, context, told
):
  with pytest.raises(errors.UsageError, match=told):
    run.score(history, candidates, context)


def test_values_that_the_log_does_not_have_are_unknown(run):
  raw = run.experiment.store.raw_ids('item').to_list()
  ids = run.ids('item', [raw[3], raw[0], 'never seen', raw[-1]])
  assert ids.dtype == np.int32
  first = id_map.FIRST
  expected = [3 + first, first, id_map.UNKNOWN, len(raw) - 1 + first]
  assert ids.tolist() == expected
  assert run.ids('item', []).tolist() == []


@pytest.mark.parametrize(
  ('field', 'raw', 'told'),
  [
    ('brand', [1], "field 'brand': expected one of category, item"),
    ('item', ['i1', [2]], "raw values of 'item': \\[2\\] \\(list\\), number 2"),
    ('item', 'i1', "raw values of 'item': str: expected a list"),
    (
      'item',
      pl.DataFrame({'item': ['i1']}),
      "raw values of 'item': DataFrame: expected a list",
    ),
  ],
)
def test_what_cannot_be_looked_up_is_refused(run, field, raw, told):
  with pytest.raises(errors.UsageError, match=told):
    run.ids(field, raw)
