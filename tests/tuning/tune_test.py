"""Sweeps: pruning, failures, kills, and what is written."""

import json
import signal
import sys
import time

import pytest

from dare_jax import errors
from dare_jax import plots
from dare_jax.comparison import children
from dare_jax.comparison import runs as runs_lib
from dare_jax.configs import base
from dare_jax.tuning import figure
from dare_jax.tuning import space
from dare_jax.tuning import study as study_lib
from dare_jax.tuning import sweep
from dare_jax.tuning import table
from tests import tiny

# Stands for `train`: the nearer optim.l2 is to 0.3, the better the metric.
_FAKE = """
import json, pathlib, signal, sys, time
given = dict(word.lstrip('-').split('=', 1) for word in sys.argv[1:])
workdir = pathlib.Path(given['workdir'])
workdir.mkdir(parents=True, exist_ok=True)
with (workdir / 'starts').open('a') as file:
  file.write('.')
value = 0.9 - abs(float(given.get('config.optim.l2', 0)) - 0.3)
def stop(*unused):
  (workdir / 'saved').touch()
  sys.exit(75)
signal.signal(signal.SIGTERM, stop)
if value < BAD:
  sys.exit('error: the loss is not finite')
begun = len((workdir / 'metrics.jsonl').read_text().splitlines()) if (
  workdir / 'metrics.jsonl').exists() else 0
for step in range(begun + 1, 5):
  with (workdir / 'metrics.jsonl').open('a') as file:
    line = {'step': step, 'val/auc': value - 0.1 / step, 'test/auc': 1.0}
    file.write(json.dumps(line) + chr(10))
  print(f'step {step}/4  val/auc {value}', flush=True)
  time.sleep(PAUSE)
(workdir / 'result.json').write_text(json.dumps(
  {'config_hash': '', 'val': {'auc': value}, 'test': {'auc': 1 - value}}))
"""
_L2 = space.Field('optim.l2', (), 0.0, 1.0)
_LAYERS = space.Field('model.hidden', ((8,), (16, 8)))


class Stop(children.Stop):
  """Asks to stop after so many trials have ended."""

  def __init__(self, after=None):
    super().__init__()
    self.left = after

  def count(self):
    if self.left is not None:
      self.left -= 1
      if self.left < 0:
        self.request()


@pytest.fixture
def tune(tmp_path, monkeypatch):
  """Returns a function that runs a sweep of fake runs, and what it found."""

  def run(trials, bad=-1.0, pause=0.0, stop=None, fields=(_L2,), **changes):
    script = tmp_path / 'fake.py'
    script.write_text(
      _FAKE.replace('BAD', str(bad)).replace('PAUSE', str(pause))
    )
    monkeypatch.setattr(runs_lib, 'TRAIN', (sys.executable, str(script)))
    config = base.get_config()
    output = tmp_path / 'out'
    stop = stop or Stop()
    choice = study_lib.Choice(
      tuple(fields),
      changes.get('metric', 'auc'),
      changes.get('sampler', 'random'),
      changes.get('pruner', 'none'),
    )
    planned = sweep.Plan(
      changes.get('config', config),
      [],
      output,
      trials,
      changes.get('parallel', 1),
    )
    with children.alone(output, stop, 'tuning') as inherited:
      study = study_lib.Study(output, planned.config, choice)
      try:
        sweep.Sweep(planned, study, stop, inherited).run(stop.count)
      finally:
        run.found = table.found(study, planned, 'the command')
    return run.found

  run.starts = lambda number: len(
    (tmp_path / 'out' / 'runs' / f'trial-{number:04d}' / 'starts').read_text()
  )
  return run


def test_the_first_trial_has_what_the_space_has_of_the_config(tune):
  """The preset's auxiliary head, where the config leaves it to the preset."""
  head = space.Field('model.aux_head', (False, True))
  elsewhere = space.Field('optim.learning_rate', (), 0.5, 1.0)
  (first,) = tune(1, fields=(_L2, head, elsewhere))['trials']
  assert first['fields']['optim.l2'] == 1e-6
  assert first['fields']['model.aux_head'] == 'True'
  assert 0.5 <= first['fields']['optim.learning_rate'] <= 1.0


def of(found, key):
  return [row[key] for row in found['trials']]


def test_the_first_trial_is_the_config_and_the_best_is_a_command(tune):
  found = tune(6, fields=(_L2, space.Field('model.hidden', ((200, 80), (8,)))))
  first = found['trials'][0]
  assert first['fields'] == {'optim.l2': 1e-6, 'model.hidden': '200,80'}
  assert first['value'] == pytest.approx(0.9 - 0.3 + 1e-6)
  assert of(found, 'status') == ['done'] * 6
  best = max(found['trials'], key=lambda row: row['value'])
  assert found['best']['number'] == best['number']
  assert (
    f'--config.optim.l2={best["fields"]["optim.l2"]}'
    in (found['best']['command'])
  )
  assert best['validations'] == {
    str(step): pytest.approx(best['value'] - 0.1 / step) for step in range(1, 5)
  }
  assert sum(found['importance'].values()) == pytest.approx(1)
  assert '0*' in table.text(found)


def test_a_failed_trial_has_its_reason_and_stops_no_other(tune, capfd):
  found = tune(6, bad=0.6, fields=(_L2, _LAYERS))
  rows = found['trials']
  assert {'failed', 'done'} == set(of(found, 'status'))
  for row in rows:
    is_bad = 0.9 - abs(row['fields']['optim.l2'] - 0.3) < 0.6
    assert (row['status'] == 'failed') == is_bad
    assert row.get('reason') == ('the loss is not finite' if is_bad else None)
  assert 'failed: the loss is not finite' in capfd.readouterr().out


def test_what_no_run_could_have_fails_without_one(tune, tmp_path):
  lengths = space.Field('data.history_length', (10, 200))
  found = tune(8, fields=(lengths,))
  for row in found['trials']:
    short = row['fields']['data.history_length'] == '10'
    assert (row['status'] == 'failed') == short
    if short:
      assert 'model.top_k=20 exceeds' in row['reason']
      assert not (tmp_path / 'out/runs' / f'trial-{row["number"]:04d}').exists()
  assert {*of(found, 'status')} == {'failed', 'done'}


def test_bad_trials_are_given_up_by_their_validations(tune):
  found = tune(14, pause=0.05, pruner='median')
  pruned = [row for row in found['trials'] if row['status'] == 'given up']
  done = [row for row in found['trials'] if row['status'] == 'done']
  assert pruned and done
  # The median rule wants five trials that are done.
  assert min(row['number'] for row in pruned) >= 5
  for row in pruned:
    assert row['value'] is None and len(row['validations']) < 4
    ended = [other for other in done if other['number'] < row['number']]
    step = max(row['validations'], key=int)
    values = sorted(other['validations'][step] for other in ended)
    assert row['validations'][step] < values[len(values) // 2]
  assert 'given up' in table.text(found)


@pytest.mark.parametrize('parallel', [1, 2])
@pytest.mark.quick_cases('2')
def test_stopped_and_gone_on_with_nothing_is_counted_twice(tune, parallel):
  whole = {'pause': 0.03, 'parallel': parallel}
  with pytest.raises(errors.Stopped, match='are saved'):
    tune(6, stop=Stop(after=2), **whole)
  begun = [row for row in tune.found['trials'] if row['status'] == 'begun']
  before = [row for row in tune.found['trials'] if row['status'] == 'done']
  found = tune(6, **whole)
  assert of(found, 'number') == [*range(6)]
  assert of(found, 'status') == ['done'] * 6
  for row in before:  # Neither drawn nor run anew.
    assert found['trials'][row['number']] == row
    assert tune.starts(row['number']) == 1
  for row in begun:
    assert found['trials'][row['number']]['fields'] == row['fields']
    assert [*found['trials'][row['number']]['validations']] == [*'1234']
  again = tune(6, **whole)
  assert again == found  # And nothing is run any more.


@pytest.mark.slow
def test_a_stopped_sweep_draws_what_a_whole_one_does(tune, tmp_path):
  with pytest.raises(errors.Stopped):
    tune(5, stop=Stop(after=1), sampler='tpe', pause=0.02)
  found = of(tune(5, sampler='tpe'), 'fields')
  (tmp_path / 'out').rename(tmp_path / 'kept')
  assert of(tune(5, sampler='tpe'), 'fields') == found
  assert len({row['optim.l2'] for row in found}) == 5


def test_another_sweep_in_the_same_folder_is_refused(tune, tmp_path):
  tune(1)
  config = base.get_config()
  config.optim.learning_rate = 0.5
  with pytest.raises(errors.UsageError, match='learning_rate=0.5, but the sw'):
    tune(1, config=config)
  with pytest.raises(errors.UsageError, match='model.hidden is {"choices"'):
    tune(1, fields=(_L2, _LAYERS))
  with pytest.raises(
    errors.UsageError, match='optim.l2 is {"low": 0.0, "high": 0.5'
  ):
    tune(1, fields=(space.Field('optim.l2', (), 0.0, 0.5),))
  with pytest.raises(errors.UsageError, match='metric=logloss'):
    tune(1, metric='logloss')
  config = base.get_config()
  config.checkpoint.keep_last = 1
  assert len(tune(2, config=config, sampler='tpe')['trials']) == 2
  (tmp_path / 'out' / 'study.db').write_bytes(b'not a database')
  with pytest.raises(errors.UsageError, match='not readable as the trials'):
    tune(1)


@pytest.mark.slow
def test_figure(tune, tmp_path, monkeypatch):
  found = tune(5, fields=(_L2, _LAYERS))
  path = tmp_path / 'importance.png'
  assert figure.draw(found, path)
  assert path.read_bytes().startswith(b'\x89PNG')
  assert not figure.draw(found | {'importance': {}}, tmp_path / 'none.png')
  monkeypatch.setattr(plots, 'can_draw', lambda: False)
  assert not figure.draw(found, tmp_path / 'none.png')


# Real processes.


def _start(root, *arguments):
  made, output = tiny.config(root), root / 'out'
  return tiny.start('tune', made, f'--workdir={output}', *arguments)


@pytest.mark.slow
def test_real_trials_killed_stopped_and_gone_on_with(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  file = tmp_path / 'space.toml'
  file.write_text('optim.learning_rate = {low = 0.001, high = 0.1, log = true}')
  arguments = [f'--space={file}', '--trials=3', '--config.model.aux_head=False']
  runs = tmp_path / 'out' / 'runs'

  def wait_for(condition):
    while not condition():
      assert process.poll() is None, process.communicate()
      time.sleep(0.01)

  process = _start(tmp_path, *arguments)
  wait_for((runs / 'trial-0000' / 'checkpoints' / 'last').exists)
  process.kill()
  process.communicate()
  process = _start(tmp_path, *arguments)
  wait_for((runs / 'trial-0001' / 'config.json').exists)
  process.send_signal(signal.SIGTERM)
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == 75, stderr
  process = _start(tmp_path, *arguments)
  stdout, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr
  found = json.loads((tmp_path / 'out' / 'trials.json').read_text())
  assert of(found, 'status') == ['done'] * 3
  assert found['trials'][0]['fields'] == {'optim.learning_rate': 0.01}
  for row in found['trials']:
    workdir = runs / f'trial-{row["number"]:04d}'
    result = json.loads((workdir / 'result.json').read_text())
    assert row['value'] == result['val']['auc']
  assert found['best']['command'] in stdout
  assert (tmp_path / 'out' / 'importance.png').is_file()
