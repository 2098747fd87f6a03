"""Files of a workdir, also where nothing can be appended or renamed."""

import contextlib
import importlib.util
import io
import os
import pathlib

from etils import epath
from etils.epath import gpath
import pytest

from dare_jax import errors
from dare_jax import storage
from dare_jax.runs import writer


class Bucket:
  """A backend for `gs://` that does what an object store does, and no more.

  Objects appear when their writer closes, whole; nothing is appended to or
  renamed; there are no folders but in the names of objects.
  """

  def __init__(self):
    self.objects = {}
    self.refuses = False

  @contextlib.contextmanager
  def open(self, path, mode):
    if mode == 'rb':
      if path not in self.objects:
        raise FileNotFoundError(path)
      yield io.BytesIO(self.objects[path])
      return
    assert mode == 'wb', 'objects are written whole'
    if self.refuses:
      raise OSError(f'403 forbidden: {path}')
    file = io.BytesIO()
    yield file
    self.objects[path] = file.getvalue()

  def exists(self, path):
    return path in self.objects

  def listdir(self, path):
    prefix = f'{path.rstrip("/")}/'
    below = [p.removeprefix(prefix) for p in self.objects if prefix in p]
    if not below:
      raise FileNotFoundError(path)
    return sorted({name.split('/')[0] for name in below})

  def makedirs(self, path, *, exist_ok, mode):
    del path, exist_ok, mode


@pytest.fixture
def bucket(monkeypatch):
  made = Bucket()
  monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, 'gs', made)
  return made


@pytest.fixture
def clock(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(storage.time, 'monotonic', lambda: now[0])
  return now


def test_where(monkeypatch):
  assert str(storage.locate('gs://b/runs/x') / 'y') == 'gs://b/runs/x/y'
  assert storage.is_remote(storage.locate('gs://b/x'))
  home = os.path.expanduser('~')
  assert str(storage.locate('~/x')) == f'{home}/x'
  assert str(storage.locate(pathlib.Path('x'))) == f'{os.getcwd()}/x'
  assert not storage.is_remote(storage.locate('x'))


def test_a_write_replaces_the_whole(tmp_path):
  path = storage.locate(tmp_path / 'file')
  storage.write(path, b'long before')
  storage.write(path, b'after')
  assert path.read_bytes() == b'after'
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_a_failed_write_leaves_what_was(tmp_path, monkeypatch):
  path = storage.locate(tmp_path / 'file')
  storage.write(path, b'before')

  def full(unused):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(storage.os, 'fsync', full)
  with pytest.raises(errors.UsageError, match=r'file: .*\(No space left on'):
    storage.write(path, b'after')
  assert path.read_bytes() == b'before'


def test_a_disk_that_takes_a_part_at_a_time(tmp_path):
  file = storage.GrowingFile(storage.locate(tmp_path / 'f'), b'first\n')

  class Slow:
    def __init__(self, file):
      self._file = file

    def write(self, content):
      return self._file.write(bytes(content[:2]))

    def __getattr__(self, name):
      return getattr(self._file, name)

  file._file = Slow(file._file)
  file.append(b'second\n')
  file.close()
  assert (tmp_path / 'f').read_bytes() == b'first\nsecond\n'


def test_a_bucket_gets_the_whole_now_and_then(bucket, clock):
  path = storage.locate('gs://b/run/f')
  file = storage.GrowingFile(path, b'1')
  file.append(b'2')
  assert path.read_bytes() == b'1'
  file.sync()
  assert path.read_bytes() == b'12'
  file.append(b'3')
  clock[0] += 31
  file.append(b'4')
  assert path.read_bytes() == b'1234'
  file.append(b'5')
  file.close()
  assert path.read_bytes() == b'12345'


def test_metrics_in_a_bucket_resume_without_gap(bucket):
  made = writer.MetricsWriter('gs://b/run', 0, 0, 0)
  made.write(1, 0.1, 1.0, {'train/loss': 1.0})
  made.sync()  # As before a save.
  lines, crc = made.lines, made.crc
  made.write(2, 0.2, 2.0, {'train/loss': 0.5})  # Then it is killed.
  for step in (2, 3):
    made = writer.MetricsWriter('gs://b/run', 1, lines, crc)
    made.write(step, 0.2, 2.0, {'train/loss': 0.5})
    made.close()
  content = bucket.objects['gs://b/run/metrics.jsonl'].decode()
  assert [line[:10] for line in content.splitlines()] == [
    '{"step": 1',
    '{"step": 3',
  ]
  assert any('/tensorboard/events.out' in name for name in bucket.objects)


def test_a_bucket_that_refuses_is_one_line(bucket):
  bucket.refuses = True
  with pytest.raises(errors.UsageError, match='gs://b/x: .*403 forbidden'):
    storage.write(epath.Path('gs://b/x'), b'')


@pytest.mark.skipif(
  importlib.util.find_spec('gcsfs') is not None, reason='gcsfs is there'
)
def test_a_bucket_without_its_library_says_what_to_install():
  for use in (storage.read, lambda path: storage.write(path, b'')):
    with pytest.raises(errors.UsageError, match=r"install -e '.\[gcs\]'"):
      use(storage.locate('gs://b/x'))


def test_read(tmp_path, bucket):
  bucket.objects['gs://b/x'] = b'1'
  assert storage.read(storage.locate('gs://b/x')) == b'1'
  assert storage.read(storage.locate('gs://b/y')) is None
  assert storage.read(storage.locate(tmp_path / 'no' / 'such')) is None
  with pytest.raises(errors.UsageError, match='cannot be read'):
    storage.read(storage.locate(tmp_path))
