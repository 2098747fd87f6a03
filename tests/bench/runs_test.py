"""The table of finished runs, and its figure."""

import json
import statistics

import pytest

from dare_jax import errors
from dare_jax.bench import command
from dare_jax.bench import runs


def _write(folder, model, length, seed, auc):
  path = folder / f'{model}-{length}-{seed}'
  path.mkdir()
  config = {'data.history_length': length, 'model.name': model}
  (path / 'config.json').write_text(json.dumps(config))
  result = {
    'model': model,
    'seed': seed,
    'test': {'auc': auc},
    'examples_per_s': 100.0 * seed,
  }
  (path / 'result.json').write_text(json.dumps(result))
  return path


@pytest.fixture
def folder(tmp_path):
  for seed, auc in ((1, 0.7), (2, 0.8), (3, 0.75)):
    _write(tmp_path, 'dare', 1000, seed, auc)
  _write(tmp_path, 'dare', 200, 1, 0.65)
  _write(tmp_path, 'twin', 200, 1, 0.6)
  (tmp_path / 'unfinished').mkdir()
  return tmp_path


def test_rows(folder):
  rows = runs.table(folder, ['data.history_length'])
  assert [(r['model'], r['history_length'], r['seeds']) for r in rows] == [
    *(('dare', 200, 1), ('dare', 1000, 3), ('twin', 200, 1))
  ]
  assert rows[1]['auc'] == pytest.approx((0.7 + 0.8 + 0.75) / 3)
  assert rows[1]['auc_std'] == statistics.stdev([0.7, 0.8, 0.75])
  assert rows[1]['targets_per_s'] == pytest.approx(200)
  assert rows[0]['auc_std'] == 0


def test_runs_without_auc(tmp_path):
  """As of one class: the others have theirs, and their part of the figure."""
  _write(tmp_path, 'twin', 200, 1, 0.6)
  for seed, test in ((1, {'auc': 0.7}), (2, {'logloss': 0.1})):
    path = _write(tmp_path, 'dare', 200, seed, 0.7) / 'result.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'test': test}))
  dare, twin = runs.table(tmp_path, ['data.history_length'])
  assert (dare['auc'], dare['auc_std'], dare['seeds']) == (None, None, 2)
  assert twin['auc'] == 0.6
  assert '-' in command.show([dare]).split()
  pytest.importorskip('matplotlib')
  runs.draw([dare, twin], 'data.history_length', tmp_path / 'figure.png')
  with pytest.raises(errors.UsageError, match='no run has a test AUC'):
    runs.draw([dare], 'data.history_length', tmp_path / 'none.png')
  assert [path.name for path in tmp_path.glob('*.png')] == ['figure.png']


def test_what_is_refused(folder, tmp_path_factory):
  with pytest.raises(errors.UsageError, match='--by=data.x: .* no such field'):
    runs.table(folder, ['data.x'])
  with pytest.raises(errors.UsageError, match='seed 1 of .* came twice'):
    runs.table(folder, ['model.name'])
  empty = tmp_path_factory.mktemp('empty')
  with pytest.raises(errors.UsageError, match='result.json, found none'):
    runs.table(empty, ['data.history_length'])


def test_figure(folder):
  pytest.importorskip('matplotlib')
  rows = runs.table(folder, ['data.history_length', 'model.name'])
  path = folder / 'figure.png'
  runs.draw(rows, 'data.history_length', path)
  assert path.read_bytes().startswith(b'\x89PNG')
  assert path.stat().st_size < 150_000
  with pytest.raises(errors.UsageError, match='expected numbers above 0'):
    runs.draw(
      [row | {'name': row['model']} for row in rows], 'model.name', path
    )
