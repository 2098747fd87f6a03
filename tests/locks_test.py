"""Locks: one holder at a time, whatever becomes of it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from dare_jax.process import locks

_HOLD = """
import sys, time
from dare_jax.process import locks
lock = locks.Lock(sys.argv[1])
print('held', flush=True)
time.sleep(100)
"""


@pytest.fixture
def other(tmp_path):
  """A process that holds a lock."""
  path = tmp_path / 'lock'
  with subprocess.Popen(
    [sys.executable, '-c', _HOLD, str(path)], stdout=subprocess.PIPE
  ) as process:
    assert process.stdout.readline() == b'held\n'
    process.path = path
    yield process
    process.kill()


def test_a_second_is_told_who_holds_it(other):
  with pytest.raises(locks.HeldError) as caught:
    locks.Lock(other.path)
  assert caught.value.holder.pid == other.pid
  assert f'process {other.pid} on {os.uname().nodename}, since 20' in str(
    caught.value
  )
  assert 'locks.Lock' in caught.value.holder.command


def test_it_dies_with_its_process(other):
  other.send_signal(signal.SIGKILL)
  other.wait()
  assert other.path.exists()
  lock = locks.Lock(other.path)
  with pytest.raises(locks.HeldError) as caught:
    locks.Lock(other.path)
  assert caught.value.holder.pid == os.getpid()
  lock.release()
  lock.release()
  assert not other.path.exists()


def test_a_file_without_a_word_in_it(tmp_path, monkeypatch):
  monkeypatch.setattr(locks, '_READ_SECONDS', 0.0)
  with (tmp_path / 'lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(locks.HeldError, match='another process'):
      locks.Lock(tmp_path / 'lock')


def test_children_do_not_keep_it(tmp_path):
  path = tmp_path / 'lock'
  lock = locks.Lock(path)
  with subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1) as child:
    forked = os.fork()
    if not forked:
      time.sleep(100)
      os._exit(0)
    lock.release()
    locks.Lock(path).release()
    assert child.poll() is None
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)
    child.communicate(b'\n')


def test_the_end_of_a_forked_child_frees_nothing(tmp_path):
  lock = locks.Lock(tmp_path / 'lock')
  forked = os.fork()
  if not forked:
    lock.release()  # As its `finally` would.
    os._exit(0)
  os.waitpid(forked, 0)
  with pytest.raises(locks.HeldError):
    locks.Lock(tmp_path / 'lock')
  lock.release()


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks(tmp_path, monkeypatch, number):
  def refuse(*unused):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(locks.fcntl, 'flock', refuse)
  with pytest.raises(locks.UnsupportedError, match=os.strerror(number)):
    locks.Lock(tmp_path / 'lock')


_RACE = """
import sys, time
from dare_jax.process import locks
held = 0
end = time.monotonic() + 2
while time.monotonic() < end:
  try:
    lock = locks.Lock(sys.argv[1])
  except locks.HeldError:
    continue
  with open(sys.argv[2], 'x'):  # Fails if another holds it as well.
    held += 1
  import os
  os.unlink(sys.argv[2])
  lock.release()
print(held)
"""


def test_never_two_at_a_time(tmp_path):
  """Four processes take and leave it, which removes the file, at full speed."""
  paths = [str(tmp_path / name) for name in ('lock', 'inside')]
  started = [
    subprocess.Popen(
      [sys.executable, '-c', _RACE, *paths], stdout=subprocess.PIPE
    )
    for _ in range(4)
  ]
  told = [process.communicate(timeout=60)[0] for process in started]
  assert [process.returncode for process in started] == [0] * 4
  assert sum(map(int, told)) > 100
