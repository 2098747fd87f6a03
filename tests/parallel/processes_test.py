"""Real processes over loopback: one training, one set of files, one stop."""

from __future__ import annotations

from collections.abc import Iterator
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from dare_jax import cli
from tests import tiny
from tests.parallel import parity

_LAUNCHER = pathlib.Path(__file__).parents[2] / 'launch' / 'local.sh'
_ROWS = {'optim__tables': 'lazy_adam', 'optim__row_sparse_from': 50}
_CLUSTERED = {
  'model__name': 'twin_v2',
  'model__cluster_size': 3,
  'model__cluster_every_steps': 3,
}


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Iterator[pathlib.Path]:
  folder = tmp_path_factory.mktemp('processes')
  tiny.write_log(folder / 'log.csv')
  yield folder


def _flags(root: pathlib.Path, **fields: object) -> list[str]:
  config = f'--config={cli.configs_dir() / "csv_log.py"}'
  chosen = {name.replace('__', '.'): v for name, v in (_ROWS | fields).items()}
  base = tiny.flags(tiny.config(root))
  return [config, *base, *(f'--config.{n}={v}' for n, v in chosen.items())]


def _start(
  root: pathlib.Path,
  workdir: pathlib.Path,
  count: int,
  last: tuple[str, ...] = (),
  starts: tuple[str, ...] = ('-m', 'dare_jax.train'),
  **fields: object,
) -> list[subprocess.Popen[str]]:
  """Starts processes; `last` are flags of the last one alone."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  where = [f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}']
  command = [sys.executable, *starts, f'--workdir={workdir}']
  command += _flags(root, **fields)
  return [
    subprocess.Popen(
      [
        *command,
        *(where if count > 1 else []),
        *_number(count, number),
        *(last if number == count - 1 else ()),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for number in range(count)
  ]


def _number(count: int, number: int) -> list[str]:
  return [f'--process_id={number}'] if count > 1 else []


def _finish(processes: list[subprocess.Popen[str]], code: int = 0) -> list[str]:
  texts = [process.communicate(timeout=500)[0] for process in processes]
  codes = [process.returncode for process in processes]
  assert codes == [code] * len(processes), (codes, texts)
  return texts


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields', [_CLUSTERED, {'optim__tables': 'adam'}], ids=['clusters', 'dense']
)
def test_several_processes_train_what_one_does(root, tmp_path, fields):
  one, two = (tmp_path / str(count) for count in (1, 2))
  _finish(_start(root, one, 1, **fields))
  texts = _finish(_start(root, two, 2, **fields))
  assert 'everything is in' in texts[0]
  assert 'step' not in texts[1]  # One process writes.
  lines = [tiny.metric_lines(workdir) for workdir in (one, two)]
  for single, shared in zip(*lines, strict=True):
    assert list(single) == list(shared)
    if single['step'] <= 4:  # Later, noise grows: Adam, and flips of the top k.
      for name in ('train/loss', 'val/logloss'):
        if name in single:
          assert shared[name] == pytest.approx(single[name], abs=3e-5)
  results = [
    json.loads((workdir / 'result.json').read_text()) for workdir in (one, two)
  ]
  assert results[1]['test']['auc'] == pytest.approx(
    results[0]['test']['auc'], abs=1e-3
  )
  assert results[0]['parameters'] == results[1]['parameters']


@pytest.mark.slow
def test_losses_and_metrics_of_one_process():
  flags = ['--models=twin', '--tables=lazy_adam', '--steps=5']
  losses, metrics = parity.of_processes(2, flags)
  expected = parity.losses(jax.devices()[:1], parity.options(flags))
  assert losses.keys() == expected.keys()
  for case, values in expected.items():
    np.testing.assert_allclose(losses[case], values, rtol=0, atol=1e-9)
  values = parity.metrics_of_all()
  assert metrics.keys() == values.keys()
  for name, value in values.items():
    assert metrics[name] == pytest.approx(value, rel=0, abs=1e-12), name


@pytest.mark.slow
def test_sigterm_to_one_stops_all_and_any_number_goes_on(root):
  workdir = root / 'stopped'
  # Many steps, so that the signal comes before the end; little beside them.
  fields = {
    'train__steps': 300,
    'train__log_every_steps': 5,
    'eval__every_steps': 100,
    'checkpoint__every_steps': 100,
  }
  processes = _start(root, workdir, 2, **fields)
  metrics = workdir / 'metrics.jsonl'
  deadline = time.time() + 400
  while not metrics.exists() or metrics.read_text().count('\n') < 3:
    assert time.time() < deadline and processes[0].poll() is None
    time.sleep(0.05)
  processes[1].send_signal(signal.SIGTERM)
  texts = _finish(processes, 75)
  assert all('the state is saved' in text for text in texts)
  texts = _finish(_start(root, workdir, 1, **fields))
  assert 'resuming' in texts[0]
  result = json.loads((workdir / 'result.json').read_text())
  assert result['steps'] == 300 and 0 < result['resumed_from'][0] < 300
  lines = tiny.metric_lines(workdir)
  steps = [line['step'] for line in lines]
  assert steps == sorted(steps)
  trained = [line['step'] for line in lines if 'train/loss' in line]
  assert trained == list(range(5, 301, 5))


_NOTICED = """
import sys, time
import jax
from dare_jax import errors
from dare_jax.runs import interrupt
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
stop = interrupt.StopSignal()  # Not installed: SIGTERM goes to JAX's service.
for number in range(2000):
  try:
    stop.check()
  except errors.Stopped:
    print(number)
    sys.exit(75)
  print('.', file=sys.stderr, flush=True)
  time.sleep(0.02)
"""


@pytest.mark.slow
def test_a_notice_to_jax_stops_all_at_the_same_check():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    where = f'127.0.0.1:{free.getsockname()[1]}'
  started = [
    subprocess.Popen(
      [sys.executable, '-c', _NOTICED, where, str(number)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  assert started[1].stderr.readline()  # The first check is behind it.
  started[1].send_signal(signal.SIGTERM)
  texts = [process.communicate(timeout=100) for process in started]
  assert [process.returncode for process in started] == [75, 75], texts
  numbers = [out.splitlines()[-1] for out, _ in texts]
  assert numbers[0] == numbers[1]


@pytest.mark.slow
def test_bad_input_is_told_by_all(root, tmp_path):
  texts = _finish(_start(root, tmp_path / 'w', 2, optim__tables='adamw'), 2)
  for text in texts:
    assert "optim.tables='adamw'" in text


@pytest.mark.slow
def test_another_config_of_one_process_is_told_by_all(root, tmp_path):
  """Its own learning rate would train parameters of its own, unnoticed."""
  last = ('--config.optim.learning_rate=0.5',)
  texts = _finish(_start(root, tmp_path / 'w', 2, last), 2)
  for text in texts:
    assert (
      "error: optim.learning_rate of process 1 is '0.5', that of process 0"
      " '0.01'; all processes need the same." in text
    )
  assert not (tmp_path / 'w').exists()


@pytest.mark.slow
def test_a_user_without_negatives_is_told_by_all(tmp_path):
  """Before anything is written."""
  log = tiny.write_log(tmp_path / 'log.csv')
  rows = [f'all,i{item},c{item % 10},{item}' for item in range(100)]
  with log.open('a') as file:
    file.write('\n'.join(rows) + '\n')
  fields = {'train__steps': 200, 'train__batch_size': 4}
  texts = _finish(_start(tmp_path, tmp_path / 'run', 2, **fields), 2)
  for text in texts:
    assert text.count("error: no negative for user 'all' of the") == 1, text
    assert 'Traceback' not in text
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--num_processes=2'], '--coordinator is missing'),
    (
      ['--coordinator=h:1', '--num_processes=2', '--process_id=2'],
      '--process_id=2: expected 0 to 1',
    ),
  ],
)
def test_bad_flags(root, tmp_path, flags, message):
  done = subprocess.run(
    [sys.executable, '-m', 'dare_jax.train', f'--workdir={tmp_path}', *flags],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert message in done.stderr and done.stderr.count('\n') == 1


@pytest.mark.slow
def test_launched_locally(root, tmp_path):
  workdir = tmp_path / 'run'
  arguments = ['2', f'--workdir={workdir}', *_flags(root)]
  environment = os.environ | {'PYTHON': sys.executable}

  def launch(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
      [str(_LAUNCHER), *options, *arguments],
      capture_output=True,
      text=True,
      check=False,
      env=environment,
    )

  dry = launch('--dry-run')
  assert dry.returncode == 0 and dry.stdout.count('--process_id=') == 2
  assert not workdir.exists()
  done = launch()
  assert done.returncode == 0, done.stdout + done.stderr
  assert (workdir / 'result.json').exists()
  wrong = subprocess.run(
    [str(_LAUNCHER), 'x'], capture_output=True, check=False
  )
  assert wrong.returncode == 2 and b'usage' in wrong.stderr


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_a_bug_in_one_process_ends_all(root, tmp_path, victim):
  """Its peers wait for it in a step; JAX would have it wait for them."""
  code = f"""
import runpy
import jax
from dare_jax.runs import session

log = session.Session.log

def fail(self):
  if jax.process_index() == {victim}:
    raise RuntimeError('as if it were a bug')
  return log(self)

session.Session.log = fail
runpy.run_module('dare_jax.train', run_name='__main__', alter_sys=True)
"""
  fields = {'train__steps': 200, 'eval__every_steps': 0}
  processes = _start(root, tmp_path / 'run', 2, starts=('-c', code), **fields)
  text = processes[victim].communicate(timeout=200)[0]
  assert processes[victim].returncode == 1
  assert 'RuntimeError: as if it were a bug' in text
  processes[1 - victim].communicate(timeout=150)
  assert processes[1 - victim].returncode


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_a_save_that_fails_on_one_process_ends_all(root, tmp_path, victim):
  """Its peers do not wait; what was saved before is there, and goes on."""
  workdir = tmp_path / 'run'
  last = workdir / 'checkpoints' / 'last'
  fields = {
    'train__steps': 100,
    'train__log_every_steps': 20,
    'eval__every_steps': 0,
    'checkpoint__every_steps': 20,
  }
  processes = _start(root, workdir, 2, **fields)
  deadline = time.time() + 400
  while not any(path.name.isdigit() for path in last.glob('*')):
    assert time.time() < deadline and processes[0].poll() is None
    time.sleep(0.01)
  # As if its disk were full: no file may grow beyond that.
  limit = (16_384, resource.RLIM_INFINITY)
  resource.prlimit(processes[victim].pid, resource.RLIMIT_FSIZE, limit)
  begin = time.monotonic()
  texts = _finish(processes, 2)
  assert time.monotonic() - begin < 60
  for text in texts:
    lines = [line for line in text.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and 'Traceback' not in text, text
    assert f'could not be written (process {victim}: ' in lines[0]
    assert 'File too large' in lines[0] and 'same command' in lines[0]
  _finish(_start(root, workdir, 2, **fields))
  result = json.loads((workdir / 'result.json').read_text())
  assert result['steps'] == 100 and 0 < result['resumed_from'][0] < 100
