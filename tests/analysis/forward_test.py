"""What is read off a model agrees with the model, and with its tables."""

import jax
import numpy as np
import pytest

from dare_jax.analysis import forward
from dare_jax.analysis import sources
from tests import tiny
from tests.analysis import untrained


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('forward')
  tiny.write_log(root / 'log.csv', num_users=20)
  return root


@pytest.fixture(scope='module')
def made(request, root):
  return sources.Sources([untrained.source(root, request.param)])


@pytest.mark.parametrize('made', ['dare', 'din', 'eta'], indirect=True)
@pytest.mark.quick_cases('dare', 'eta')
def test_finds_what_the_model_keeps(made):
  run = made.all[0].run
  lists = forward.rankings(run, made.test_batches(), keep=3)
  batch = run.experiment.batch_as_read(next(iter(made.test_batches())))
  output = jax.jit(run.model.apply)(run.variables, batch)
  real = batch.targets.weight > 0
  distance, scores, mask = (
    np.asarray(array)[real]
    for array in (
      output.search.distance,
      output.search.scores,
      output.search.mask,
    )
  )
  for row, found in enumerate(lists['found'][: len(scores)]):
    order = np.argsort(-np.where(mask[row], scores[row], -np.inf))
    best = np.where(mask[row], scores[row], -np.inf)[order][: len(found)]
    of_found = [scores[row][distance[row] == p][0] for p in found if p]
    np.testing.assert_allclose(of_found, best[: len(of_found)], rtol=1e-5)
  assert len(lists['found']) == made.test.real.sum()


@pytest.mark.parametrize('made', ['dare', 'twin_proj'], indirect=True)
@pytest.mark.quick_cases('dare')
def test_ranks_by_category_and_position(made):
  """As the scores of a grid say, which is made another way."""
  run = made.all[0].run
  lists = forward.rankings(run, made.test_batches(), keep=3)['by_category']
  rows, histories = made.test.rows(), made.histories
  category, seen = histories.before(rows.user, rows.end)
  scores = forward.category_scores(
    run, rows.target, category, np.arange(1, histories.length + 1)
  )
  scores = np.where(seen, scores, -np.inf)
  best = -np.sort(-scores, axis=1)[:, :3]
  found = np.take_along_axis(scores, lists - 1, axis=1)
  np.testing.assert_allclose(found, best, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('made', ['dare'], indirect=True)
def test_grid_scores_are_those_of_the_tables(made):
  run = made.all[0].run
  tables = run.variables['tables']['encoder']
  category, time = (
    np.asarray(tables[f'{name}_attention']) for name in ('category', 'time')
  )
  score = category[3] @ category[5] / np.sqrt(8) + time[0] @ time[2] / np.sqrt(
    4
  )
  found = forward.category_scores(
    run, np.array([3]), np.array([[5]]), np.array([2])
  )
  np.testing.assert_allclose(found, [[score]], rtol=1e-5)


@pytest.mark.parametrize('made', ['dare'], indirect=True)
def test_interest_is_part_of_what_the_head_sees(made):
  """Target, interest and target * interest, beside each other."""
  arrays = forward.head_inputs(made.all[0].run, made.test_batches())
  width = arrays['interest'].shape[1]
  assert arrays['input'].shape == (made.test.real.sum(), 3 * width)
  target, interest, product = np.split(arrays['input'], 3, axis=1)
  np.testing.assert_allclose(arrays['interest'], target * interest, rtol=1e-5)
  np.testing.assert_array_equal(arrays['interest'], product)
