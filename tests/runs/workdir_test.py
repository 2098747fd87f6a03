"""One training in a workdir at a time; what claims it, and what does not."""

import errno
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from dare_jax import errors
from dare_jax import storage
from dare_jax.checkpoints import checkpoint
from dare_jax.evaluation import metrics
from dare_jax.logs import options as log_options
from dare_jax.process import locks
from dare_jax.runs import run as run_lib
from dare_jax.runs import workdir as workdir_lib
from dare_jax.store import datasets
from tests import storage_test
from tests import tiny

bucket = storage_test.bucket


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('workdir')
  tiny.write_log(folder / 'log.csv')
  datasets.prepare(log_options.of_section(tiny.config(folder).data))
  return folder


def _files(folder):
  return sorted(path.name for path in folder.iterdir())


def _log_with_one_who_has_all(path, times):
  """A log in which, after some time, one user has met every item."""
  tiny.write_log(path)
  rows = [f'Ann,i{item},c{item % 10},{time}' for item, time in times.items()]
  with path.open('a') as file:
    file.write('\n'.join(rows) + '\n')


# One item at each moment: before 20 she has met few of them.
_LATE = {item: 5 + item // 5 for item in range(100)}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('split', 'part'), [('by_time', 'test'), ('leave_last_session', 'train')]
)
def test_users_without_negatives_are_told_before_step_1(
  tmp_path, capsys, split, part
):
  """And the advice works, in the same workdir."""
  _log_with_one_who_has_all(tmp_path / 'log.csv', _LATE)
  fields = {'data__split': split, 'train__steps': 2}
  fields |= {'data__val_from': 15, 'data__test_from': 22}
  workdir = tmp_path / 'run'
  made = tiny.config(tmp_path, **fields)
  line = tiny.refusal(lambda: tiny.run(made, workdir), capsys)
  assert f"no negative for user 'Ann' of the {part} split" in line
  assert not workdir.exists()
  (advice,) = re.findall(r'set data\.exclude=(\w+)', line)
  made = tiny.config(tmp_path, data__exclude=advice, **fields)
  assert tiny.run(made, workdir)['steps'] == 2


@pytest.mark.slow
def test_a_start_that_fails_leaves_what_was_there(root, tmp_path, monkeypatch):
  """Whatever fails, as long as there is nothing to go on from."""
  (tmp_path / 'mine').write_text('x')

  def fail(*unused):
    raise errors.UsageError('no')

  for target, name in (
    (run_lib.Run, '_plan_memory'),
    (run_lib.Run, '_fresh_state'),
    (run_lib.experiment.Experiment, 'check'),
  ):
    with monkeypatch.context() as patch:
      patch.setattr(target, name, fail)
      with pytest.raises(errors.UsageError, match='no'):
        tiny.run(tiny.config(root), tmp_path)
    assert _files(tmp_path) == ['mine']
  with monkeypatch.context() as patch:
    patch.setattr(run_lib.metric_log, 'MetricLog', fail)
    with pytest.raises(errors.UsageError, match='no'):
      tiny.run(tiny.config(root), tmp_path)
  made = tiny.config(root, model__name='twin', train__steps=2)
  assert tiny.run(made, tmp_path)['model'] == 'twin'


def test_a_bad_origin_is_told_before_the_step_is_compiled(
  root, tmp_path, monkeypatch
):
  def refuse(*unused):
    raise AssertionError('must not be compiled')

  monkeypatch.setattr(run_lib.Run, '_plan_memory', refuse)
  made = tiny.config(root, train__init_from=str(tmp_path / 'none'))
  with pytest.raises(errors.UsageError, match='no run there'):
    tiny.run(made, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_another_run_has_the_folder_for_good_once_it_is_saved(root, tmp_path):
  run = run_lib.Run(tiny.config(root), tmp_path)
  session = run.restore_or_init()
  session.save()
  run.close()
  with pytest.raises(errors.UsageError, match='model.name=twin, but'):
    tiny.run(tiny.config(root, model__name='twin'), tmp_path)


@pytest.mark.slow
def test_a_finished_run_needs_no_lock(root, tmp_path, monkeypatch):
  made = tiny.config(root, train__steps=2)
  result = tiny.run(made, tmp_path)
  assert 'lock' not in _files(tmp_path)
  with monkeypatch.context() as patch:
    patch.setattr(workdir_lib.Holder, 'take', lambda self: 1 / 0)
    assert tiny.run(made, tmp_path) == result
  lock = locks.Lock(tmp_path / 'lock')
  assert tiny.run(made, tmp_path) == result
  with pytest.raises(errors.UsageError, match='is training there'):
    tiny.run(tiny.config(root, train__steps=4), tmp_path)
  lock.release()
  assert tiny.run(tiny.config(root, train__steps=4), tmp_path)['steps'] == 4


def test_a_disk_without_locks_goes_on_and_says_so(
  root, tmp_path, monkeypatch, capsys
):
  def refuse(*unused):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(locks.fcntl, 'flock', refuse)
  made = tiny.config(root)
  first = run_lib.Run(made, tmp_path)
  session = first.restore_or_init()
  assert 'no locks on this disk (' in capsys.readouterr().err
  second = run_lib.Run(made, tmp_path)
  assert 'has not said that it ended' in capsys.readouterr().err
  with pytest.raises(errors.UsageError, match='has taken over this training'):
    session.save()
  first.close()
  second.close()
  assert not checkpoint.Checkpoints(tmp_path / 'checkpoints').steps()


def test_the_last_to_start_has_a_bucket(bucket, capsys):
  path = storage.locate('gs://b/run')
  first, second = (workdir_lib.Holder(path) for _ in range(2))
  first.take()
  first.check()
  assert not capsys.readouterr().err
  second.take()
  assert 'has not said that it ended' in capsys.readouterr().err
  second.check()
  before = dict(bucket.objects)
  with pytest.raises(errors.UsageError, match=r'process \d+ on .*, since 20'):
    first.check()
  first.release()
  assert bucket.objects == before
  second.release()
  third = workdir_lib.Holder(path)
  third.take()
  assert not capsys.readouterr().err


def test_who_lost_a_bucket_writes_no_metrics_more(bucket, root, monkeypatch):
  """Closing the files would upload them."""
  monkeypatch.setattr(run_lib.checkpoint, 'Checkpoints', _NoCheckpoints)
  run = run_lib.Run(tiny.config(root), 'gs://b/run')
  session = run.restore_or_init()
  write = session.files.metric_log.write
  write(session.progress, 'train', metrics.Report({'loss': 1.0}, {}))
  workdir_lib.Holder(run.workdir).take()
  before = dict(bucket.objects)
  with pytest.raises(errors.UsageError, match='taken over'):
    write(session.progress, 'train', metrics.Report({'loss': 1.0}, {}))
  run.close()
  assert bucket.objects == before


class _NoCheckpoints:
  """Orbax would want a real bucket."""

  def __init__(self, *unused):
    pass

  def restore_last(self, *unused):
    return None

  def close(self):
    pass


# Real processes.


def _start(made, workdir, **streams):
  command = [sys.executable, '-m', 'dare_jax.train', f'--workdir={workdir}']
  command += ['--config=configs/csv_log.py', *tiny.flags(made)]
  streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | streams
  return subprocess.Popen(command, text=True, **streams)


def _wait_for(process, condition):
  while not condition():
    assert process.poll() is None, process.communicate()
    time.sleep(0.005)


@pytest.mark.slow
def test_a_second_start_is_refused_in_every_phase(root, tmp_path):
  """The first is not hurt; killed, it frees the folder at once."""
  made = tiny.config(
    root,
    train__steps=3000,
    train__log_every_steps=10,
    eval__every_steps=200,
    eval__batch_size=1,
    checkpoint__every_steps=10,
  )
  workdir = tmp_path / 'run'
  saving = 'checkpoints/last/*orbax-checkpoint-tmp*'
  phases = {
    'compile': (workdir / 'lock').exists,
    'train': lambda: (workdir / 'metrics.jsonl').exists(),
    'save': lambda: any(workdir.glob(saving)),
    'evaluate': lambda: (
      '"step": 200,' in (workdir / 'metrics.jsonl').read_text()
    ),
  }
  first = _start(made, workdir)
  for phase, is_reached in phases.items():
    _wait_for(first, is_reached)
    begin = time.monotonic()
    second = _start(made, workdir)
    _, stderr = second.communicate(timeout=300)
    assert second.returncode == 2, (phase, stderr)
    assert stderr.count('\n') == 1, (phase, stderr)
    told = f'error: {workdir}: process {first.pid} on '
    assert stderr.startswith(told) and ', since 20' in stderr, (phase, stderr)
    assert time.monotonic() - begin < 60
    assert first.poll() is None
  first.kill()
  first.communicate()
  second = _start(made, workdir)
  _wait_for(second, lambda: _holder(workdir) == second.pid)
  second.send_signal(signal.SIGTERM)
  _, stderr = second.communicate(timeout=300)
  assert second.returncode == 75, stderr


def _holder(workdir):
  found = locks.Holder.parse((workdir / 'lock').read_bytes())
  return found and found.pid


@pytest.mark.slow
def test_of_two_that_start_together_one_trains(root, tmp_path):
  made = tiny.config(root, train__steps=4)
  for _ in range(3):
    workdir = tmp_path / 'run'
    pair = [_start(made, workdir) for _ in range(2)]
    told = [process.communicate(timeout=500)[1] for process in pair]
    codes = [process.returncode for process in pair]
    assert sorted(codes) in ([0, 2], [0, 0]), told  # The second came after all.
    assert (workdir / 'result.json').exists()
    lines = tiny.metric_lines(workdir)  # Of training, validation and test.
    assert [line['step'] for line in lines] == [3, 4, 4]
    shutil.rmtree(workdir)
