"""What a trained model loses where its cached keys are narrow."""

import jax
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import evaluate
from dare_jax.bench.searching import recall
from dare_jax.runs import saved_run
from tests import tiny


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  root = tmp_path_factory.mktemp('recall')
  tiny.write_log(root / 'log.csv')
  tiny.run(tiny.config(root), root / 'run')
  return root / 'run'


@pytest.mark.slow
def test_float32_keys_lose_nothing(workdir):
  rows = {row['keys']: row for row in recall.table(workdir)}
  evaluated = evaluate.evaluate(workdir)['metrics']['auc']
  own = rows.pop('own search')
  assert own['recall'] == 1
  np.testing.assert_allclose(own['auc'], evaluated, atol=1e-6)
  assert rows['float32']['recall'] == 1
  assert rows['float32']['auc'] == pytest.approx(own['auc'], abs=1e-6)
  assert all(0.9 < row['recall'] <= 1 for row in rows.values())


def test_shares_count_what_was_kept():
  own = np.array([[4, 2, 0]]), np.array([[True, True, False]])
  other = np.array([[2, 9, 4]]), np.array([[True, True, False]])
  nothing = own[0], np.zeros((1, 3), bool)
  found = {'own search': (*own, None), 'int8': (*other, None)}
  assert recall._shares(found, 'int8').tolist() == [0.5]
  found = {'own search': (*nothing, None), 'int8': (*other, None)}
  assert np.isnan(recall._shares(found, 'int8')).all()


@pytest.mark.slow
def test_tables_by_id_give_the_stored_rows(workdir):
  saved = saved_run.restore(workdir)
  tables = saved.experiment.trainer.tables
  stored = saved.state.tables['encoder']
  by_id = jax.device_get(tables.by_id(stored))
  assert set(by_id) == set(stored)
  for name, table in by_id.items():
    place = tables.position(name.rpartition('_')[0], np.arange(len(table)))
    np.testing.assert_array_equal(table, np.asarray(stored[name])[place])


def test_another_search_is_refused(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  made = tiny.config(tmp_path, model__name='sdim', train__steps=1)
  tiny.run(made, tmp_path / 'run')
  with pytest.raises(errors.UsageError, match='cached keys'):
    recall.table(tmp_path / 'run')
