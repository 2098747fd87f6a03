"""Which checkpoint is best, where AUC cannot say so."""

import dataclasses
import json

import numpy as np
import pytest

from dare_jax import errors
from dare_jax import evaluate
from dare_jax.data import label_counts
from dare_jax.evaluation import judge
from dare_jax.experiments import experiment
from dare_jax.runs import progress
from tests import tiny

pytestmark = pytest.mark.slow

_BOTH = label_counts.LabelCounts(3, 4)
_ONES = label_counts.LabelCounts(5, 0)
_ZEROS = label_counts.LabelCounts(0, 5)
# Rows are at times 0 to 29; `by_time` trains on 0..19.
_PARTS = {'train': (0, 20), 'val': (20, 25), 'test': (25, 30)}


def _write(path, alike):
  """A log of impressions; the labels of the parts in `alike` are all one."""
  rng = np.random.default_rng(0)
  rows = ['user_id,item_id,category_id,timestamp,label']
  for user in range(40):
    favourite = rng.integers(5)
    for time in range(30):
      for _ in range(2):
        item = rng.integers(50)
        label = int(item % 5 == favourite or rng.random() < 0.3)
        for part, value in alike.items():
          first, stop = _PARTS[part]
          label = value if first <= time < stop else label
        rows.append(f'u{user},i{item},c{item % 5},{time},{label}')
  path.write_text('\n'.join(rows) + '\n')


def _config(root, **fields):
  defaults = {
    'data__columns__label': 'label',
    'data__split': 'by_time',
    'data__val_from': 20,
    'data__test_from': 25,
    'data__min_events': 2,
    'data__min_history': 1,
    'train__steps': 12,
    'eval__every_steps': 3,
    'model__name': 'twin',
  }
  return tiny.config(root, **(defaults | fields))


@pytest.fixture
def make(tmp_path):
  """Returns a function that writes a log and gives a config and a workdir."""

  def made(alike, **fields):
    _write(tmp_path / 'log.csv', alike)
    return _config(tmp_path, **fields), tmp_path / 'run'

  return made


@pytest.mark.parametrize('value', [0, 1])
def test_validation_of_one_class_is_judged_by_logloss(make, capsys, value):
  config, workdir = make({'val': value})
  result = tiny.run(config, workdir)
  told = capsys.readouterr().out.splitlines()
  lines = [line for line in tiny.metric_lines(workdir) if 'val/logloss' in line]
  loss = {line['step']: line['val/logloss'] for line in lines}
  assert len(loss) == 4 and 'val/auc' not in ' '.join(lines[0])
  assert result['best_by'] == 'logloss'
  assert result['best_step'] == min(loss, key=loss.get)
  assert result['val']['logloss'] == min(loss.values())
  assert 'auc' in result['test'] and result['left_out'].keys().isdisjoint(
    ('auc', 'gauc', 'logloss')
  )
  # Said before the first step, and at each evaluation.
  reason = f'labels are {value}'
  first = next(i for i, line in enumerate(told) if line.startswith('step '))
  before = [line for line in told[:first] if 'no AUC in validation' in line]
  assert len(before) == 1 and reason in before[0]
  assert 'that of the lowest val/logloss' in before[0]
  notes = [line for line in told if 'val: left out: auc, gauc' in line]
  assert len(notes) == 4 and all(reason in line for line in notes)


def test_validation_of_both_is_judged_by_auc(make, capsys):
  config, workdir = make({})
  result = tiny.run(config, workdir)
  auc = {
    line['step']: line['val/auc']
    for line in tiny.metric_lines(workdir)
    if 'val/auc' in line
  }
  assert (result['best_by'], result['best_step']) == (
    *('auc', max(auc, key=auc.get)),
  )
  assert 'no AUC' not in capsys.readouterr().out


def test_a_test_of_one_class_says_so(make, capsys):
  config, workdir = make({'test': 1})
  result = tiny.run(config, workdir)
  assert 'auc' not in result['test'] and 'logloss' in result['test']
  assert 'labels are 1' in result['left_out']['auc']
  assert result['best_by'] == 'auc'
  told = capsys.readouterr().out
  assert told.index('no AUC in the test, where all') < told.index('\nstep ')
  evaluated = evaluate.evaluate(workdir)
  assert evaluated['left_out'] == result['left_out']
  assert evaluated['metrics'] == result['test']


@pytest.mark.parametrize(
  ('alike', 'named'),
  [
    (dict.fromkeys(_PARTS, 1), 'every label of the log is 1: .*'),
    (dict.fromkeys(_PARTS, 0), 'no row of the log has label 1; .*'),
    ({'train': 1}, 'nothing can be learned from the training split: all .* 1'),
  ],
)
def test_nothing_to_learn_is_refused_before_training(make, alike, named):
  config, workdir = make(alike)
  flag = '--config.data.columns.label=None'
  with pytest.raises(errors.UsageError, match=f'{named}.*{flag}'):
    tiny.run(config, workdir)
  assert not (workdir / 'checkpoints' / 'last').exists()
  # What the message names is a way out.
  config.data.columns.label = None
  config.train.steps = 1
  result = tiny.run(config, workdir.with_name('other'))
  assert result['best_by'] == 'auc' and 'auc' in result['test']


class _Broken:
  """Makes logits of some validations NaN, by their number from 0 on."""

  def __init__(self, monkeypatch, numbers):
    self._predict = experiment.Experiment.predict
    self._numbers = numbers
    self._count = -1
    predict = lambda *args: self.predict(*args)
    monkeypatch.setattr(experiment.Experiment, 'predict', predict)

  def predict(self, parts, state, split, *args):
    found = self._predict(parts, state, split, *args)
    if split != 'val':
      return found
    self._count += 1
    if self._count in self._numbers:
      found = dataclasses.replace(found, logit=found.logit * np.nan)
    return found


def test_an_undefined_validation_is_never_the_best(make, monkeypatch, capsys):
  config, workdir = make({})
  _Broken(monkeypatch, {0, 2})
  result = tiny.run(config, workdir)
  assert result['best_by'] == 'auc' and result['best_step'] in (6, 12)
  told = capsys.readouterr().out.splitlines()
  notes = [line for line in told if 'this step cannot be the best' in line]
  assert [line.split('/')[0] for line in notes] == ['step 3', 'step 9']


def test_no_defined_validation_at_all(make, monkeypatch):
  config, workdir = make({})
  _Broken(monkeypatch, {0, 1, 2, 3})
  result = tiny.run(config, workdir)
  assert (result['best_by'], result['best_step']) == (None, 12)
  assert result['val'] == {} and 'auc' in result['test']
  assert evaluate.evaluate(workdir, which='last')['step'] == 12
  with pytest.raises(errors.UsageError, match='--checkpoint=last'):
    evaluate.evaluate(workdir)


def test_a_resumed_run_stays_with_its_judge(make):
  config, workdir = make({'val': 1}, train__steps=6)
  tiny.run(config, workdir)
  config.train.steps = 9
  made, saved = tiny.restore(config, workdir)
  del made
  assert saved['progress']['best_by'] == 'logloss'
  result = tiny.run(config, workdir)
  assert result['best_by'] == 'logloss' and result['resumed_from'] == [6]
  loss = {
    line['step']: line['val/logloss']
    for line in tiny.metric_lines(workdir)
    if 'val/logloss' in line
  }
  assert result['best_step'] == min(loss, key=loss.get)


def test_progress_of_an_older_version_loads():
  saved = dataclasses.asdict(progress.Progress(step=5, best_step=3))
  del saved['best_by']
  older = progress.Progress(**json.loads(json.dumps(saved)))
  assert older.best_by is None and older.tested_step == 3


def test_what_decides():
  assert judge.choose(_BOTH) == 'auc'
  assert judge.choose(_ONES) == judge.choose(_ZEROS) == 'logloss'
  for best_by, order in (('auc', (0.4, 0.6)), ('logloss', (0.6, 0.4))):
    worse, better = ({best_by: value} for value in order)
    assert judge.is_better(best_by, better, worse)
    assert not judge.is_better(best_by, worse, better)
    assert not judge.is_better(best_by, worse, worse)
    assert judge.is_better(best_by, worse, {})
    # A best that an older version chose without that metric.
    assert judge.is_better(best_by, worse, {'accuracy': 0.9})
    assert not judge.is_better(best_by, {'accuracy': 0.9}, {})


def test_notes():
  labels = {'train': _BOTH, 'val': _BOTH, 'test': _BOTH}
  assert judge.notes(labels, 'auc') == []
  (note,) = judge.notes(labels | {'test': _ZEROS}, 'auc')
  assert note == 'no AUC in the test, where all 5 labels are 0'
  (note,) = judge.notes(labels | {'val': _ONES}, 'auc')
  assert 'no further one is best' in note
