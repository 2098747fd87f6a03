"""A bundle scores as the run that it was made of."""

import numpy as np
import pytest

from dare_jax import bundle
from dare_jax import errors
from dare_jax import trained
from tests import tiny
from tests.bundle import served


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('bundle')
  tiny.write_log(root / 'log.csv')
  served.train(root, root / 'run')
  served.export(root / 'run', root / 'bundle')
  return root


@pytest.fixture(scope='module')
def run(root):
  return trained.load(root / 'run')


@pytest.fixture(scope='module')
def opened(root):
  return bundle.open(root / 'bundle')


def test_says_what_it_is(opened, run):
  assert opened.name == 'dare'
  assert opened.fields == ('item', 'category')
  assert opened.context_fields == ()
  assert (opened.history_length, opened.top_k) == (20, 5)
  assert opened.unknown_id == 1
  assert opened.has_cached_keys
  assert [str(s) for s in opened.shapes] == ['1x2x16', '1x4x32', '3x4x32']


def test_scores_histories_and_candidates_of_any_number(opened, run):
  rng = np.random.default_rng(0)
  lengths, counts = (0, 3, 20, 19, 31), (1, 4, 3, 9, 5)
  histories = [served.raw(rng, n) for n in lengths]
  candidates = [served.raw(rng, n) for n in counts]
  served.assert_same(opened, run, histories, candidates)


def test_a_state_that_was_appended_to_is_the_whole_history(opened, run):
  """Past the first slots, and past the history length: the ring goes round."""
  rng = np.random.default_rng(1)
  history, some = served.raw(rng, 60), served.raw(rng, 3)
  ids = served.ids(opened, history)
  state = opened.encode({field: own[:10] for field, own in ids.items()})
  for end in range(10, 60):
    state = opened.append(state, {f: int(own[end]) for f, own in ids.items()})
    if end % 7:
      continue
    (scores,) = opened.score([state], [served.ids(opened, some)])
    past = {field: values[: end + 1] for field, values in history.items()}
    np.testing.assert_allclose(
      scores.logit, run.score(past, some), rtol=1e-6, atol=1e-6
    )


def test_ids_are_those_of_the_run(opened, run):
  for raw in (['i5', 'i7', None, 'never', ''], np.array(['i5', 'i99'])):
    np.testing.assert_array_equal(opened.ids('item', raw), run.ids('item', raw))
  unknown = opened.unknown('item', opened.ids('item', ['i5', 'never']))
  assert unknown.tolist() == [False, True]
  with pytest.raises(errors.UsageError, match='expected one of category, item'):
    opened.ids('brand', ['b'])
  with pytest.raises(errors.UsageError, match='expected a list'):
    opened.ids('item', 'i5')
