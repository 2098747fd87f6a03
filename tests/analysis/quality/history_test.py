"""Other lengths and other k of a checkpoint, against models made so."""

import numpy as np
import pytest

from dare_jax.analysis import forward
from dare_jax.analysis import sources
from dare_jax.analysis.quality import history
from dare_jax.evaluation import metrics
from tests import tiny
from tests.analysis import untrained


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('history')
  tiny.write_log(root / 'log.csv', num_users=30)
  return root


def test_lengths_and_numbers_to_keep(root):
  assert history.lengths(500) == [15, 31, 62, 125, 250, 500]
  assert history.lengths(12) == [12]
  config = untrained.source(root, 'dare').run.model.config
  assert history.kept(config, 20) == [1, 2, 5, 10]


def test_other_settings_predict_as_a_model_made_so(root):
  own = untrained.source(root, 'dare')
  of = sources.Sources([own])
  moments = np.array([0, 3, 7])
  fewer = history.with_top_k(own.run, 2)
  found = history._predict(of, fewer, moments, length=10)
  other = untrained.source(
    root, 'dare', data__history_length=10, model__top_k=2
  )
  expected = sources.Sources([other])
  logits = forward.logits(other.run, expected.test_batches(moments=moments))
  np.testing.assert_allclose(found.logit, logits, rtol=1e-5)
  assert len(found.label) == of.test.real[moments].sum()
  whole = forward.logits(own.run, of.test_batches(moments=moments))
  assert np.abs(whole - logits).max() > 1e-3


def test_a_history_shorter_than_the_list_is_kept_whole(root, monkeypatch):
  monkeypatch.setattr(history, '_SHORTEST', 3)
  of = sources.Sources([untrained.source(root, 'dare', model__top_k=6)])
  data = history.measure(of, lambda _: None, root)['history']
  found = data['models']['dare']['length']
  assert found['number'] == [5, 10, 20]
  assert all(0 <= value <= 1 for value in found['auc'])
  assert found['difference'][-1]['mean'] == 0.0
  kept = data['models']['dare']['kept']
  assert kept['number'] == [1, 2, 5, 6, 10]
  assert kept['auc'][3] == found['auc'][-1]


def test_differences_are_to_the_own_setting():
  def made(logit):
    return metrics.Predictions(
      np.array(logit, np.float32), np.array([1, 0, 1, 0]), np.ones(4),
      np.array([0, 0, 1, 1]), np.zeros(4, int),
    )  # fmt: skip

  found = history.compared(
    {5: made([1, 2, 1, 2]), 10: made([2, 1, 2, 1])}, own=10
  )
  assert found['number'] == [5, 10] and found['auc'] == [0.0, 1.0]
  assert found['difference'][0] == {'mean': -1.0, 'low': -1.0, 'high': -1.0}
  assert found['difference'][1]['mean'] == 0.0
