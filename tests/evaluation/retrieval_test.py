"""NDCG against a slow twin, and on a store whose relevance is planted."""

import math

import hypothesis
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import types
from dare_jax.configs import synthetic as config_synthetic
from dare_jax.evaluation import found as found_lib
from dare_jax.evaluation import retrieval
from dare_jax.experiments import experiment
from dare_jax.logs.builders import synthetic
from tests.data import stores


def slow_dcg(gains, keep):
  return sum(
    gain / math.log2(rank + 2) for rank, gain in enumerate(gains[:keep])
  )


def slow_ndcg(gains, relevance, keep):
  ideal = slow_dcg(sorted(relevance, reverse=True), keep)
  return slow_dcg(gains, keep) / ideal if ideal else math.nan


@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_ndcg_equals_its_definition(seed, keep):
  rng = np.random.default_rng(seed)
  relevance = rng.choice([0.0, 0.0, 0.3, 1.0, 2.5], (5, rng.integers(1, 10)))
  lists = rng.permuted(relevance, axis=1)[:, : rng.integers(1, 10)]
  found = retrieval.ndcg(lists, relevance, keep)
  expected = [
    slow_ndcg(*rows, keep) for rows in zip(lists, relevance, strict=True)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_best_list_has_1_and_an_empty_one_0():
  relevance = np.array([[0.2, 0.0, 0.9]])
  assert retrieval.ndcg(np.array([[0.9, 0.2]]), relevance, 20) == 1
  assert retrieval.ndcg(np.zeros((1, 2)), relevance, 20) == 0


def _result(scores, mask, indices) -> types.SearchResult:
  def shaped(values):
    return jnp.asarray(np.array(values))[None, None, None]

  return types.SearchResult(
    indices=shaped(indices),
    scores=shaped(scores),
    mask=shaped(mask),
    distance=20 - shaped(indices),
  )


def _best(result, keep):
  indices, mask = found_lib.best(result, keep)
  return indices[mask].tolist()


def test_best_found_orders_by_score_then_recency():
  scores = [0.5, 2.0, 0.5, 9.0, 2.0]
  mask = [True, True, True, False, True]
  assert _best(_result(scores, mask, range(5)), 3) == [4, 1, 2]
  assert _best(_result(scores, mask, range(5)), 20) == [4, 1, 2, 0]
  # The same, found in another order, in a window where they lie elsewhere.
  indices = [13, 15, 17, 18, 19]
  order = [3, 1, 4, 0, 2]
  shuffled = [np.array(values)[order] for values in (scores, mask, indices)]
  assert _best(_result(*shuffled), 20) == [19, 15, 17, 13]


_TRUTH = synthetic.make_truth(
  synthetic.Spec(
    **{
      field.name: config_synthetic.get_config().data[field.name]
      for field in synthetic.FIELDS
    }
    | {'num_categories': 6, 'num_partners': 2, 'recency_scale': 3.0}
  )
)


@pytest.mark.parametrize('bounded', [False, True])
def test_search_ndcg_equals_its_definition(bounded, monkeypatch):
  monkeypatch.setattr(retrieval, '_CHUNK', 40)  # Some targets at a time.
  rng = np.random.default_rng(3)
  b, m, c, length, keep = 4, 2, 3, 15, 4
  mask = np.arange(length) >= rng.integers(0, 6, (b, 1))
  end = rng.integers(4, length + 1, (b, m)).astype(np.int32)
  batch = types.Batch(
    history=types.History(
      ids={'category': rng.integers(2, 8, (b, length)) * mask}, mask=mask
    ),
    end=end,
    targets=types.Targets(
      ids={'category': rng.integers(2, 8, (b, m, c))},
      label=rng.integers(0, 2, (b, m, c)).astype(np.float32),
      weight=rng.integers(0, 2, (b, m, c)).astype(np.float32),
    ),
    start=end - 8 if bounded else None,
  )
  indices = np.argsort(rng.random((b, m, c, length)))[..., :6]
  start = np.zeros_like(end) if batch.start is None else batch.start
  seen = mask[:, None] & (np.arange(length) < end[..., None])
  seen &= np.arange(length) >= start[..., None]
  is_there = np.take_along_axis(
    np.broadcast_to(seen[:, :, None], (b, m, c, length)), indices, axis=-1
  )
  found = retrieval.search_ndcg(_TRUTH, batch, (indices, is_there), keep)
  assert np.isfinite(found).sum() > 3
  for index in np.ndindex(b, m, c):
    window, moment, _ = index
    target = batch.targets.ids['category'][index]

    def relevance(i, window=window, moment=moment, target=target):
      if not seen[window, moment, i]:
        return 0.0
      behavior = batch.history.ids['category'][window, i]
      position = end[window, moment] - i
      return float(synthetic.relevance(_TRUTH, target, behavior, position))

    gains = [
      relevance(i) if there else 0.0
      for i, there in zip(indices[index], is_there[index], strict=True)
    ]
    expected = slow_ndcg(gains, [relevance(i) for i in range(length)], keep)
    if not (batch.targets.label[index] and batch.targets.weight[index]):
      expected = math.nan
    assert found[index] == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_a_store_without_truth_has_none():
  store = stores.build([(0, item, 0, item) for item in range(5)])
  assert retrieval.truth_of(store) is None


def test_a_truth_that_another_process_cannot_read_stops_all(monkeypatch):
  store = stores.build([(0, item, 0, item) for item in range(5)])
  loaded = experiment.Experiment(None, None, store, {}, None, 0, None, {})
  texts = lambda text: [text, 'damaged there']
  monkeypatch.setattr(experiment.processes, '_gather_texts', texts)
  with pytest.raises(errors.UsageError, match='^damaged there$'):
    _ = loaded._truth


@pytest.mark.slow
def test_evaluation_scores_the_search_where_the_truth_is_known(tmp_path):
  config = config_synthetic.get_config('dim=4')
  config.data.data_dir = str(tmp_path)
  config.data.num_users = 40
  config.data.num_items = 300
  config.data.num_categories = 20
  config.data.recency_scale = 10.0
  config.data.events_per_user = 120
  config.data.history_length = 60
  config.eval.batch_size = 16
  values = {}
  for search in ('score', 'all'):
    config.model.search = search
    loaded = experiment.load(config)
    made = loaded.predict(loaded.init_state(), 'test')
    values[search] = made.compute()[retrieval.METRIC]
    has_one = ~np.isnan(made.means[retrieval.METRIC])
    assert has_one.sum() > 10
    assert (made.label[has_one] == 1).all()
  # Both rank all behaviors by the same scores, and keep 20 of them or more.
  assert values['score'] == pytest.approx(values['all'], rel=1e-6)
  assert 0 < values['score'] < 1
