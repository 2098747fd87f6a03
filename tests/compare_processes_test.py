"""Comparisons in processes of their own, stopped and killed."""

import json
import signal
import time

import pytest

from tests import tiny


def _start(root, output, *arguments):
  made = tiny.config(root)
  return tiny.start('compare', made, f'--output={output}', *arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('arguments', 'named'),
  [
    (['--models=dare,twim'], "did you mean 'twin'"),
    (['--models=dare', '--base=dear'], 'Did you mean dare?'),
    (['--seeds=0'], 'seeds'),
    (['--models=dare', '--output=/dev/null/x'], '/dev/null/x: cannot be'),
  ],
  ids=['model', 'base', 'seeds', 'output'],
)
def test_bad_flags_exit_2_with_one_line(tmp_path, arguments, named):
  process = _start(tmp_path, tmp_path / 'out', *arguments)
  stdout, stderr = process.communicate(timeout=300)
  assert (process.returncode, stdout) == (2, '')
  assert stderr.startswith('error: ') and stderr.count('\n') == 1, stderr
  assert named in stderr
  assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_two_models_two_seeds_stopped_and_killed(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  output = tmp_path / 'out'
  arguments = ['--models=twin,thin=dare:attention_dim=2', '--seeds=2']
  arguments += ['--config.train.steps=4', '--config.eval.batch_size=200']
  arguments += ['--config.model.aux_head=False']  # Less to compile.

  def finished():
    return {
      path: path.stat().st_mtime_ns
      for path in output.glob('runs/*/result.json')
    }

  def wait_for(condition):
    while not condition():
      assert process.poll() is None, process.communicate()
      time.sleep(0.01)

  process = _start(tmp_path, output, *arguments)
  wait_for(finished)
  wait_for((output / 'runs' / 'thin-1' / 'config.json').exists)
  process.send_signal(signal.SIGTERM)
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == 75, stderr
  assert stderr.splitlines()[-1].endswith('run the same command to go on')
  first = finished()
  process = _start(tmp_path, output, *arguments)
  wait_for(lambda: len(finished()) >= 2)
  process.kill()
  process.communicate()
  second = finished()
  process = _start(tmp_path, output, *arguments)
  stdout, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr
  last = finished()
  assert len(last) == 4
  assert first.items() <= last.items() and second.items() <= last.items()
  rows = json.loads((output / 'table.json').read_text())['rows']
  assert [(row['model'], row['status'], row['seeds']) for row in rows] == [
    ('twin', 'done', 2),
    ('thin', 'done', 2),
  ]
  assert {'auc', 'gauc', 'category_gauc', 'logloss'} <= set(rows[0])
  assert rows[0]['parameters']['attention_tables'] == 0
  difference = rows[1]['auc_difference']
  mean = rows[1]['auc']['mean'] - rows[0]['auc']['mean']
  assert difference['mean'] == pytest.approx(mean, abs=1e-12)
  assert difference['low'] < difference['high']
  saved = json.loads((output / 'runs' / 'thin-2' / 'config.json').read_text())
  assert (saved['model.name'], saved['model.attention_dim']) == ('dare', 2)
  assert (output / 'comparison.png').is_file()
  assert 'thin' in stdout and 'everything is in' in stdout
  assert (output / 'table.md').read_text().startswith('# Comparison')
