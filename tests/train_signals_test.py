"""A training in a process of its own, and real signals."""

import pathlib
import signal
import time

import pytest

from dare_jax.logs import options as log_options
from dare_jax.process import locks
from dare_jax.store import datasets
from dare_jax.store import history_store
from tests import tiny


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  """A folder with the log and prepared data."""
  folder = tmp_path_factory.mktemp('tiny')
  tiny.write_log(folder / 'log.csv')
  return folder


def wait_for(process, condition, timeout=300.0) -> None:
  """Polls until the condition holds; fails if the process ends before."""
  deadline = time.monotonic() + timeout
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline, 'nothing happened'
    time.sleep(0.002)


def holds(process, workdir) -> bool:
  """Has the process taken the workdir? A file left by another does not say."""
  lock = workdir / 'lock'
  try:
    holder = locks.Holder.parse(lock.read_bytes())
  except FileNotFoundError:
    return False
  return holder is not None and holder.pid == process.pid


def wrote(workdir, text, times=1):
  """Is there a line with `text` in metrics.jsonl?"""
  path = workdir / 'metrics.jsonl'

  def is_there():
    return path.exists() and path.read_text().count(text) >= times

  return is_there


def _long(root, **fields):
  """Long enough to hit: 40 steps, validated moment by moment."""
  return tiny.config(
    root,
    train__steps=40,
    train__log_every_steps=10,
    eval__every_steps=20,
    eval__batch_size=1,
    checkpoint__every_steps=7,
    **fields,
  )


@pytest.fixture(scope='module')
def long_run(root):
  """The undisturbed twin of the runs below."""
  workdir = root / 'long'
  tiny.run(_long(root), workdir)
  return workdir


@pytest.mark.slow
def test_sigterm_in_every_phase(root, long_run, tmp_path):
  """One run, terminated in each phase in turn, ends as if nothing was."""
  made = _long(root)
  made.data.data_dir = str(tmp_path / 'data')
  workdir = tmp_path / 'run'
  prepared = tmp_path / 'data'
  prepared_in = datasets.store_path(log_options.of_section(made.data)).exists
  phases = {
    'prepare': lambda: any(prepared.glob('*.preparing')),
    'compile': lambda: prepared_in() and holds(process, workdir),
    'train': wrote(workdir, 'train/loss', 1),
    'evaluate': wrote(workdir, 'train/loss', 2),
    'test': wrote(workdir, 'val/auc', 2),
  }
  for phase, reached in phases.items():
    process = tiny.start('train', made, f'--workdir={workdir}')
    wait_for(process, reached)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 75, (phase, stderr)
    last = stderr.splitlines()[-1]
    assert last.startswith('stopped by SIGTERM: '), (phase, stderr)
    assert last.endswith('run the same command to go on')
    if phase == 'prepare':
      # Nothing half made: no store, or (the signal came late) a whole one.
      stores = list(prepared.glob('csv_log-*'))
      for store in stores:
        history_store.open_store(store)
      assert stores or not workdir.exists()
  process = tiny.start('train', made, f'--workdir={workdir}')
  stdout, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr
  assert 'AUC' in stdout
  tiny.assert_same_run(made, long_run, workdir, but=('config_hash',))
