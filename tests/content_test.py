"""Runs with content vectors: trained, resumed, served; ranking cold items."""

import json
import pathlib
import re
import shutil

import numpy as np
import polars as pl
import pytest

from dare_jax import bundle
from dare_jax import errors
from dare_jax import evaluate
from dare_jax import predict
from dare_jax import prepare
from dare_jax import trained
from dare_jax.bench.searching import content
from dare_jax.runs import run as run_lib
from dare_jax.server import served as served_lib
from dare_jax.server import states
from tests import tiny
from tests.bundle import served

pytestmark = pytest.mark.slow  # Trainings with vectors, a bundle, bulk scores.

_WIDTH = 6
_PAST = {'item': ['i5', 'i16', 'i27'], 'category': ['c5', 'c6', 'c7']}
# The last two are not in the log; only the first of them has a vector.
_SOME = {'item': ['i5', 'i8', 'i105', 'new'], 'category': ['c5'] * 4}


def _write_vectors(path: pathlib.Path, seed: int = 0) -> None:
  """Writes vectors of most items of the tiny log, and of some it lacks."""
  items = [f'i{number}' for number in range(3, 110)]
  vectors = np.random.default_rng(seed).normal(size=(len(items), _WIDTH))
  pl.DataFrame({'item': items, 'vector': vectors.tolist()}).write_parquet(path)


def _config(root: pathlib.Path, **fields):
  given = {'data__item_vectors': str(root / 'vectors.parquet'), **fields}
  return tiny.config(root, **given)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('content')
  tiny.write_log(folder / 'log.csv')
  _write_vectors(folder / 'vectors.parquet')
  tiny.run(_config(folder, optim__learning_rate=0.1), folder / 'run')
  return folder


@pytest.fixture(scope='module')
def run(root):
  return trained.load(root / 'run')


def test_items_that_the_log_lacks_are_scored_by_their_vectors(run):
  ids = run.ids('item_vector', _SOME['item'])
  assert ids.tolist() == [4, 7, 104, 1]
  assert run.ids('item', _SOME['item']).tolist()[2:] == [1, 1]
  logits = run.score(_PAST, _SOME)
  assert abs(logits[2] - logits[3]) > 1e-3
  with pytest.raises(errors.UsageError, match='expected the fields item, cat'):
    run.score({**_PAST, 'item_vector': _PAST['item']}, _SOME)


def test_checkpoints_do_not_hold_frozen_vectors(root, run):
  table = run.variables['tables']['encoder']['item_vectors']
  vectors = run.experiment.store.vectors.vectors
  np.testing.assert_array_equal(table[2:], vectors)
  assert not np.asarray(table[:2]).any()
  folder = next((root / 'run' / 'checkpoints' / 'last').iterdir())
  names = (folder / 'state' / '_METADATA').read_text()
  assert 'item_attention' in names
  assert 'item_vectors' not in names


def test_a_resumed_run_is_the_same_run(root, tmp_path):
  """Stopped between two steps, and taken up without the file of vectors."""
  made = _config(root, optim__learning_rate=0.1)
  with pytest.raises(errors.Stopped):
    tiny.run(made, tmp_path / 'run', tiny.StopAtCheck(4))
  moved = root / 'moved'
  (root / 'vectors.parquet').rename(moved)
  try:
    tiny.run(made, tmp_path / 'run')
  finally:
    moved.rename(root / 'vectors.parquet')
  tiny.assert_same_run(made, root / 'run', tmp_path / 'run')


def test_another_file_is_refused(root, tmp_path, capsys):
  shutil.copytree(root / 'run', tmp_path / 'run')
  other = _config(root, data__item_vectors=str(tmp_path / 'vectors.parquet'))
  _write_vectors(tmp_path / 'vectors.parquet', seed=1)
  run = lambda made: lambda: run_lib.Run(made, tmp_path / 'run').close()
  text = tiny.refusal(run(other), capsys)
  assert 'data.item_vectors=' in text and 'choose another --workdir' in text
  same = _config(root, optim__learning_rate=0.1)
  kept = (root / 'vectors.parquet').read_bytes()
  shutil.copy(tmp_path / 'vectors.parquet', root / 'vectors.parquet')
  try:
    text = tiny.refusal(run(same), capsys)
    assert 'is not the file that the run in' in text
    # What was trained is evaluated by the vectors that it was trained with.
    found = evaluate.evaluate(root / 'run')
  finally:
    (root / 'vectors.parquet').write_bytes(kept)
  result = json.loads((root / 'run' / 'result.json').read_text())
  assert found['metrics']['auc'] == result['test']['auc']


def test_what_cannot_be_read_is_one_line(root, tmp_path, capsys):
  for fields, named in (
    ({'data__item_vectors': 'none.npy'}, 'no file none.npy'),
    ({'model__vectors_in': ('head',)}, 'model.vectors_in'),
    (
      {'model__vectors_in': ('attention',), 'model__name': 'sdim'},
      'reads no attention vectors',
    ),
    ({'data__min_item_count': 2}, 'data.min_item_count=2 forgets'),
    (
      {
        'model__plan': 'shared',
        'model__tune_vectors': True,
        'optim__balance_gradients': True,
      },
      'model.tune_vectors=True',
    ),
  ):
    made = _config(root, **fields)
    text = tiny.refusal(lambda made=made: tiny.run(made, tmp_path), capsys)
    assert named in text


def test_what_is_said_of_the_vectors(root, capsys):
  card = prepare.prepare(_config(root))
  assert '6 wide, from' in card and '97 of 100 items of the log' in card
  run_lib.Run(_config(root), root / 'other').restore_or_init()
  assert '97 of 100 items of the log (97.0%)' in ' '.join(
    capsys.readouterr().out.split()
  )


def test_tuned_vectors_move_and_are_saved(root, tmp_path):
  """Also split over the devices, and in both roles of a shared plan."""
  made = _config(
    root,
    model__tune_vectors=True,
    model__plan='shared',
    optim__row_sparse_from=8,
  )
  tiny.run(made, tmp_path / 'run')
  found = trained.load(tmp_path / 'run')
  table = np.asarray(found.variables['tables']['encoder']['item_vectors'])
  start = found.experiment.store.vectors.vectors
  assert np.abs(table[2:] - start).max() > 1e-3
  assert not table[0].any()
  of_lacking = found.ids('item_vector', ['i105'])
  np.testing.assert_array_equal(table[of_lacking], start[of_lacking - 2])


def test_a_run_goes_on_with_the_vectors_of_a_newer_file(root, tmp_path):
  """What was learned stays; the vectors are those of the new file."""
  _write_vectors(tmp_path / 'new.parquet', seed=0)
  frame = pl.read_parquet(tmp_path / 'new.parquet').reverse()
  frame.write_parquet(tmp_path / 'new.parquet')
  made = _config(
    root,
    data__item_vectors=str(tmp_path / 'new.parquet'),
    train__init_from=str(root / 'run'),
    train__steps=0,
  )
  tiny.run(made, tmp_path / 'run')
  before, after = (
    trained.load(root / 'run', 'last'),
    trained.load(tmp_path / 'run', 'last'),
  )
  assert before.ids('item_vector', ['i5']) != after.ids('item_vector', ['i5'])
  best = trained.load(root / 'run', 'best')
  np.testing.assert_allclose(
    best.score(_PAST, _SOME), after.score(_PAST, _SOME), atol=1e-5
  )


def test_bulk_scores_of_a_run(root, run, tmp_path):
  """An input has no column of vectors; items beyond the log have theirs."""
  rows = pl.DataFrame({'user_id': ['u3'] * 4, 'item_id': _SOME['item']})
  rows = rows.with_columns(category_id=pl.Series(_SOME['category']))
  rows.write_csv(tmp_path / 'in.csv')
  for history in (None, str(root / 'log.csv')):
    request = predict.Request(
      str(tmp_path / 'in.csv'),
      str(tmp_path / f'out{bool(history)}.csv'),
      workdir=str(root / 'run'),
      history=history,
    )
    predict.predict(request)
    logits = pl.read_csv(request.output)['logit'].to_numpy()
    past = {}
    store = run.experiment.store
    user = store.raw_ids('user').to_list().index('u3')
    own = store.behaviors.slice(user)
    for field in ('item', 'category'):
      raw = store.raw_ids(field)
      past[field] = raw.gather(
        store.behaviors.columns[f'{field}_id'][own] - 2
      ).to_list()
    np.testing.assert_allclose(logits, run.score(past, _SOME), atol=1e-5)


def test_a_bundle_serves_cold_items(root, run, tmp_path, capsys):
  served.export(root / 'run', tmp_path / 'bundle', shapes='1x4')
  opened = bundle.open(tmp_path / 'bundle')
  assert opened.fields == ('item', 'category', 'item_vector')
  table = np.load(tmp_path / 'bundle' / 'tables' / 'item_vectors.npy')
  np.testing.assert_array_equal(
    table, run.variables['tables']['encoder']['item_vectors']
  )
  one = served_lib.Served.of(opened, 10**6, 100, None)
  assert one.messages.fields == ('item', 'category')
  past, some = (
    states.ids_of(opened, 'history', columns) for columns in (_PAST, _SOME)
  )
  state = opened.encode({field: ids[:-1] for field, ids in past.items()})
  state = opened.append(state, {field: ids[-1] for field, ids in past.items()})
  (found,) = opened.score([state], [some])
  np.testing.assert_allclose(found.logit, run.score(_PAST, _SOME), atol=1e-5)
  _check_readme(tmp_path / 'bundle', run, capsys)


def _check_readme(folder: pathlib.Path, run, capsys) -> None:
  """The lines of a bundle's README score a user as the run does."""
  lines = re.search(
    r'```python\n(.*?)```', (folder / 'README.md').read_text(), re.DOTALL
  )
  names = {'__name__': '__main__'}
  capsys.readouterr()
  exec(lines[1], names)
  found = re.findall(r'-?\d+\.\d+(?:e-?\d+)?', capsys.readouterr().out)
  history, candidates = (
    {field: names[part][field] for field in _PAST}
    for part in ('history', 'candidates')
  )
  np.testing.assert_allclose(
    np.array(found, float), run.score(history, candidates), atol=1e-5
  )


def test_a_model_without_scores_is_exported_with_vectors(root, tmp_path):
  """SDIM looks for the attention map of vectors, and reads nothing of it."""
  tiny.run(_config(root, model__name='sdim'), tmp_path / 'run')
  served.export(tmp_path / 'run', tmp_path / 'bundle', shapes='1x4')
  opened = bundle.open(tmp_path / 'bundle')
  past, some = (
    states.ids_of(opened, 'history', columns) for columns in (_PAST, _SOME)
  )
  (found,) = opened.score([past], [some])
  expected = trained.load(tmp_path / 'run').score(_PAST, _SOME)
  np.testing.assert_allclose(found.logit, expected, atol=1e-5)


def test_cold_items_are_ranked_by_vectors_and_not_without(tmp_path):
  """The bar of the benchmark, at a size of seconds."""
  shape = content.Shape(users=100, times=30, themes=6, liked=1, width=8)
  content.write(tmp_path, shape)
  made = content.config(tmp_path, 40, shape)
  made.runtime.tune_malloc = False
  made.model.hidden = made.model.aux_hidden = (16,)
  made.train.batch_size = 128
  made.eval.every_steps = 0
  found = {
    name: content.row(made, tmp_path, name, seeds=1)['auc_new_items']
    for name in ('none', 'both')
  }
  assert found['none'] < 0.65
  assert found['both'] > found['none'] + 0.15
