"""Ctrl-C and SIGTERM in real processes: saved, or left in one line."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests import tiny

# A command that is at work in Python, or in what holds no Python code.
_WORK = """
import sys, time
from dare_jax import cli
from dare_jax.process import signals

def main():
  signals.watch()
  try:
    print('at work', flush=True)
    time.sleep(60)
  finally:
    print('cleaning', flush=True)
    time.sleep(float(sys.argv[0]))

pause = sys.argv.pop()
cli.run(main, [pause])
"""


def _start(*command, **options):
  return subprocess.Popen(
    [sys.executable, *command],
    **options,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _work(pause):
  code = _WORK.replace('float(sys.argv[0])', str(pause))
  process = _start('-c', code, 'x')
  assert process.stdout.readline() == 'at work\n'
  return process


@pytest.mark.parametrize(
  ('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_command_ends_in_one_line(number, code):
  process = _work(0)
  process.send_signal(number)
  stdout, stderr = process.communicate(timeout=60)
  assert (process.returncode, stdout) == (code, 'cleaning\n'), stderr
  name = signal.Signals(number).name
  assert stderr.strip().startswith(f'stopped by {name}: ')
  assert stderr.strip().count('\n') == 0


def test_a_second_ctrl_c_ends_at_once():
  process = _work(60)
  process.send_signal(signal.SIGINT)
  assert process.stdout.readline() == 'cleaning\n'
  time.sleep(0.3)
  begin = time.monotonic()
  process.send_signal(signal.SIGINT)
  _, stderr = process.communicate(timeout=60)
  assert process.returncode == 130
  assert time.monotonic() - begin < 20
  assert 'Traceback' not in stderr and 'second Ctrl-C' in stderr


_COMMANDS = ('train', 'evaluate', 'prepare', 'compare', 'analyze', 'bench')


@pytest.mark.parametrize('command', _COMMANDS)
def test_a_command_that_still_imports_ends_in_one_line(command, tmp_path):
  # A library that all commands import, and that takes its time.
  library = 'import time; print("importing", flush=True); time.sleep(60)'
  (tmp_path / 'absl.py').write_text(library)
  for number in (signal.SIGINT, signal.SIGTERM):
    process = _start(
      *('-m', f'dare_jax.{command}'),
      env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{os.getcwd()}'},
    )
    assert process.stdout.readline() == 'importing\n'
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (128 + number, ''), stderr
    name = signal.Signals(number).name
    assert stderr.strip() == f'stopped by {name}: nothing had begun'


def test_a_command_that_has_done_its_work_ends_well():
  code = """
import atexit, time
from dare_jax import cli

@atexit.register
def end():
  print('ending', flush=True)
  time.sleep(1)

cli.run(lambda: None, ['x'])
"""
  process = _start('-c', code)
  assert process.stdout.readline() == 'ending\n'
  process.send_signal(signal.SIGINT)
  _, stderr = process.communicate(timeout=60)
  assert (process.returncode, stderr) == (0, '')


def test_importing_the_package_leaves_the_signals_alone():
  code = 'import signal, dare_jax; print(signal.getsignal(signal.SIGTERM))'
  stdout, _ = _start('-c', code).communicate(timeout=60)
  assert stdout.strip() == str(signal.Handlers.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_saves_a_training_and_the_same_command_goes_on(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  made = tiny.config(tmp_path, train__steps=100_000, train__log_every_steps=5)
  made.eval.every_steps = made.checkpoint.every_steps = 0
  workdir = tmp_path / 'run'
  for life in range(2):
    process = _start(
      *('-m', 'dare_jax.train', f'--workdir={workdir}'),
      *('--config=configs/csv_log.py', *tiny.flags(made)),
    )
    for line in process.stdout:
      if line.startswith('step '):
        break
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 75, stderr
    last = stderr.splitlines()[-1]
    assert last.startswith('stopped by SIGINT: the state is saved; run the')
    assert 'Traceback' not in stderr
    assert len(list((workdir / 'checkpoints' / 'last').iterdir())) == life + 1
