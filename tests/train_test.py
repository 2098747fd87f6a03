"""Whole runs on a tiny log: files, restarts, what goes on and what does not."""

import json
import math
import pathlib

import jax
import pytest

from dare_jax import errors
from dare_jax.experiments import experiment
from dare_jax.runs import metric_log
from dare_jax.runs import run as run_lib
from dare_jax.runs import session as session_lib
from tests import tiny

_RESULT_KEYS = [
  'model',
  'dataset',
  'seed',
  'steps',
  'best_step',
  'best_by',
  'test',
  'val',
  'left_out',
  'examples_per_s',
  'train_time_s',
  'parameters',
  'environment',
  'config_hash',
  'data_fingerprint',
  'resumed_from',
]
_METRICS = {
  *('auc', 'gauc', 'category_gauc', 'logloss', 'accuracy', 'calibration')
}
_TRAIN_METRICS = {
  *('loss', 'logloss', 'aux_logloss', 'accuracy', 'calibration'),
  'examples_per_s',
}


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  """A folder with the log and prepared data."""
  folder = tmp_path_factory.mktemp('tiny')
  tiny.write_log(folder / 'log.csv')
  return folder


@pytest.fixture(scope='module')
def straight(root):
  """An undisturbed run of 8 steps, and what it returned."""
  workdir = root / 'straight'
  return workdir, tiny.run(tiny.config(root), workdir)


def test_result(root, straight):
  workdir, result = straight
  assert json.loads((workdir / 'result.json').read_text()) == result
  assert list(result) == _RESULT_KEYS
  assert result['model'] == 'dare'
  assert result['dataset'] == 'csv_log'
  assert (result['seed'], result['steps'], result['resumed_from']) == (1, 8, [])
  assert result['best_step'] in (4, 8)
  assert result['best_by'] == 'auc'
  assert _METRICS <= set(result['test']) and _METRICS <= set(result['val'])
  assert set(result['parameters']) == {
    'attention_tables',
    'representation_tables',
    'other',
  }
  assert {'jax', 'numpy', 'python', 'devices'} <= set(result['environment'])
  targets = 8 * 32 * 3
  rate = targets / result['train_time_s']
  assert result['examples_per_s'] == pytest.approx(rate)
  state, _ = tiny.restore(tiny.config(root), workdir)
  sizes = [leaf.size for leaf in jax.tree.leaves((state.params, state.tables))]
  assert sum(result['parameters'].values()) == sum(sizes)


def test_files(straight):
  workdir, _ = straight
  assert {path.name for path in workdir.iterdir()} == {
    *('config.json', 'metrics.jsonl', 'result.json'),
    *('checkpoints', 'predictions_test.npz', 'tensorboard'),
  }
  saved = json.loads((workdir / 'config.json').read_text())
  assert saved['model.top_k'] == 5
  assert list((workdir / 'tensorboard').iterdir())


def test_metric_lines(straight):
  workdir, result = straight
  lines = tiny.metric_lines(workdir)
  found = [(line['step'], list(line)[3].split('/')[0]) for line in lines]
  assert found == [
    *((3, 'train'), (4, 'val'), (6, 'train'), (8, 'val'), (8, 'test'))
  ]
  for line in lines:
    assert list(line)[:3] == ['step', 'epoch', 'time_s']
    assert all(isinstance(line[key], float) for key in list(line)[1:])
    split = list(line)[3].split('/')[0]
    names = {key.split('/')[1] for key in list(line)[3:]}
    assert {key.split('/')[0] for key in list(line)[3:]} == {split}
    if split == 'train':
      assert names == _TRAIN_METRICS
    else:
      assert _METRICS <= names
  times = [line['time_s'] for line in lines]
  assert times == sorted(times)
  test = {f'test/{name}': value for name, value in result['test'].items()}
  assert test.items() <= lines[-1].items()


def test_two_runs_are_the_same_bit_for_bit(root, straight):
  made = tiny.config(root)
  tiny.run(made, root / 'again')
  tiny.assert_same_run(made, straight[0], root / 'again')


def test_another_seed_is_another_run(root, straight):
  result = tiny.run(tiny.config(root, seed=2, train__steps=2), root / 'seed2')
  assert result['val'] != straight[1]['val']


# A check comes once a step and once a batch of evaluation: with validation
# after steps 4 and 8 in three batches each, they are, by number,
_CHECKS = {
  1: 'before the first step',
  2: 'after step 1, on no boundary',
  4: 'after step 3, which logs and saves',
  5: 'in the validation of step 4, first batch',
  8: 'after step 4, which validates and saves',
  12: 'in the validation of step 8',
  15: 'after the last save',
  17: 'in the test',
}
_FAST_CHECKS = (5,)


@pytest.mark.slow
def test_training_by_rows_is_the_same_bit_for_bit(root, tmp_path, monkeypatch):
  """Again, stopped, and killed two steps after its last save."""
  made = tiny.config(root, optim__tables='lazy_adam', optim__row_sparse_from=1)
  tiny.run(made, tmp_path / 'straight')
  tiny.run(made, tmp_path / 'again')
  with pytest.raises(errors.Stopped):
    tiny.run(made, tmp_path / 'stopped', tiny.StopAtCheck(4))
  log = session_lib.Session.log

  def die(self):
    if self.progress.step == 6:
      raise Killed
    log(self)

  with monkeypatch.context() as patch:
    patch.setattr(session_lib.Session, 'log', die)
    with pytest.raises(Killed):
      tiny.run(made, tmp_path / 'killed')

  def refuse(*unused):
    raise AssertionError('a run that goes on needs no fresh state')

  monkeypatch.setattr(experiment.Experiment, 'init_state', refuse)
  for name in ('again', 'stopped', 'killed'):
    tiny.run(made, tmp_path / name)
    tiny.assert_same_run(made, tmp_path / 'straight', tmp_path / name)


@pytest.mark.parametrize(
  'number',
  [
    pytest.param(
      number, id=when, marks=[] if number in _FAST_CHECKS else pytest.mark.slow
    )
    for number, when in _CHECKS.items()
  ],
)
def test_stop_and_go_on_equals_no_stop(root, straight, tmp_path, number):
  made = tiny.config(root)
  with pytest.raises(errors.Stopped):
    tiny.run(made, tmp_path, tiny.StopAtCheck(number))
  assert not (tmp_path / 'result.json').exists()
  result = tiny.run(made, tmp_path)
  assert len(result['resumed_from']) == 1
  tiny.assert_same_run(made, straight[0], tmp_path)


@pytest.mark.slow
def test_stopped_again_and_again(root, straight, tmp_path):
  """Every life ends at its third check: in the second step, or evaluating."""
  made = tiny.config(root)
  lives = 0
  while not (tmp_path / 'result.json').exists():
    lives += 1
    assert lives < 20
    # An evaluation has three batches; to get through one takes five checks.
    stop = tiny.StopAtCheck(3 if lives % 2 else 6)
    try:
      tiny.run(made, tmp_path, stop)
    except errors.Stopped:
      pass
  assert lives > 3
  tiny.assert_same_run(made, straight[0], tmp_path)


class Killed(BaseException):
  """Stands for SIGKILL: nothing is saved on the way out."""


@pytest.mark.parametrize(
  ('owner', 'method', 'call'),
  [
    (metric_log.MetricLog, 'write', 3),
    pytest.param(session_lib.Session, 'save', 1, marks=pytest.mark.slow),
    pytest.param(session_lib.Session, 'finish', 1, marks=pytest.mark.slow),
  ],
)
def test_killed_after_an_effect(
  root, straight, tmp_path, owner, method, call, monkeypatch
):
  """Killed right after a metric line, a save, or before the result."""
  original = getattr(owner, method)
  calls = []

  def die(self, *args):
    calls.append(1)
    value = original(self, *args)
    if len(calls) == call:
      (tmp_path / 'result.json').unlink(missing_ok=True)
      raise Killed
    return value

  made = tiny.config(root)
  with monkeypatch.context() as patch:
    patch.setattr(owner, method, die)
    with pytest.raises(Killed):
      tiny.run(made, tmp_path)
  tiny.run(made, tmp_path)
  tiny.assert_same_run(made, straight[0], tmp_path)


def test_stop_in_a_validation_then_kill_repeats_no_line(
  root, straight, tmp_path, monkeypatch
):
  """The save of step 4 came before its validation, so the line must go."""
  made = tiny.config(root)
  with pytest.raises(errors.Stopped):
    tiny.run(made, tmp_path, tiny.StopAtCheck(5))

  def die(*unused):
    raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(session_lib.Session, 'save', die)
    with pytest.raises(Killed):
      tiny.run(made, tmp_path)
  assert any('val/auc' in line for line in tiny.metric_lines(tmp_path))
  tiny.run(made, tmp_path)
  tiny.assert_same_run(made, straight[0], tmp_path)


def test_a_finished_run_returns_its_result(root, straight, monkeypatch):
  workdir, result = straight

  def refuse(*unused):
    raise AssertionError('must not train, nor restore')

  monkeypatch.setattr(run_lib.Run, 'restore_or_init', refuse)
  assert tiny.run(tiny.config(root), workdir) == result


def test_longer_goes_on(root, straight, tmp_path):
  """n steps and n more are 2n; the test at n gives way to that at 2n."""
  half = tiny.run(tiny.config(root, train__steps=4), tmp_path)
  assert (half['steps'], half['best_step']) == (4, 4)
  made = tiny.config(root)
  result = tiny.run(made, tmp_path)
  assert result['resumed_from'] == [4]
  tiny.assert_same_run(made, straight[0], tmp_path)


@pytest.mark.slow
def test_shorter_and_other_periods(root, straight, tmp_path):
  """Resuming with other periods changes no weight, only when to look."""
  made = tiny.config(root)
  with pytest.raises(errors.Stopped):
    tiny.run(made, tmp_path, tiny.StopAtCheck(9))
  made = tiny.config(
    root,
    eval__every_steps=0,
    checkpoint__every_steps=2,
    train__log_every_steps=1,
  )
  tiny.run(made, tmp_path)
  states = [
    tiny.restore(tiny.config(root), workdir)[0].replace(sums={})
    for workdir in (straight[0], tmp_path)
  ]
  tiny.assert_same_bits(*states)


def test_no_steps(root, tmp_path):
  result = tiny.run(tiny.config(root, train__steps=0), tmp_path)
  assert (result['steps'], result['best_step']) == (0, 0)
  assert len(tiny.metric_lines(tmp_path)) == 2


def test_epochs(root, tmp_path):
  made = tiny.config(root, train__epochs=0.005)
  made.train.steps = None
  opened = run_lib.Run(made, tmp_path)
  examples = opened.experiment.pipelines['train'].num_examples
  assert opened.total_steps == math.ceil(0.005 * examples / 32)
  opened.close()
