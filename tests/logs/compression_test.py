"""What a file is, its first bytes say, whatever its name."""

import gzip
import io
import tarfile

import pyarrow as pa
import pytest

from dare_jax import errors
from dare_jax.logs import compression

_TEXT = b'1,x,2\n' * 300_000


def _zstd(data):
  return pa.Codec('zstd').compress(data, asbytes=True)


def _read(path):
  with compression.open_text(path) as file:
    return compression.read(file, 1 << 30)


@pytest.mark.parametrize('name', ['log.csv', 'log.gz', 'log.zst', 'log.zip'])
@pytest.mark.parametrize(
  'pack',
  [
    lambda data: data,
    gzip.compress,
    lambda data: gzip.compress(data[:999]) + gzip.compress(data[999:]),
    _zstd,
    lambda data: _zstd(data[:999]) + _zstd(data[999:]),
    # A frame that readers skip, as pzstd writes before each of its own.
    lambda data: b'\x50\x2a\x4d\x18\x02\0\0\0ab' + _zstd(data),
  ],
  ids=['plain', 'gzip', 'two members', 'zstd', 'two frames', 'skipped frame'],
)
def test_text_is_read_whatever_its_name(tmp_path, name, pack):
  path = tmp_path / name
  path.write_bytes(pack(b'\xef\xbb\xbf' + _TEXT))
  assert _read(path) == b'\xef\xbb\xbf' + _TEXT
  assert compression.head(path) == _TEXT[: (1 << 20) - 3]


@pytest.mark.parametrize(
  ('start', 'kind'),
  [
    (b'PK\x03\x04', 'a zip archive'),
    (b'BZh9', 'compressed by bzip2'),
    (b'\xfd7zXZ\0', 'compressed by xz'),
    (b'\x04\x22\x4d\x18', 'compressed by lz4'),
    (b'ARROW1\0\0', 'an Arrow file'),
    (b'ORC', 'an ORC file'),
  ],
  ids=['zip', 'bzip2', 'xz', 'lz4', 'Arrow', 'ORC'],
)
def test_other_kinds_are_refused(tmp_path, start, kind):
  path = tmp_path / 'log.csv'
  path.write_bytes(start + b'1,x,2\n')
  with pytest.raises(errors.UsageError, match=f'log.csv: is {kind}; expected'):
    _read(path)


def _tar(content):
  with io.BytesIO() as packed:
    with tarfile.open(fileobj=packed, mode='w') as archive:
      member = tarfile.TarInfo('log.csv')
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize(
  ('content', 'kind'),
  [
    (gzip.compress(b'PAR1'), 'compressed Parquet'),
    (gzip.compress(_tar(b'1,2\n')), 'a tar archive'),
    (_zstd(_tar(b'1,2\n')), 'a tar archive'),
    (_tar(b'1,2\n'), 'a tar archive'),
    (b'{"user": 1}\n', 'JSON'),
    (gzip.compress(b'[{"user": 1}]'), 'JSON'),
  ],
  # Not the contents, in which gzip puts the time.
  ids=['Parquet', 'tar in gzip', 'tar in zstd', 'tar', 'JSON', 'JSON in gzip'],
)
def test_what_is_packed_is_looked_at(tmp_path, content, kind):
  path = tmp_path / 'log.csv.gz'
  path.write_bytes(content)
  with pytest.raises(errors.UsageError, match=f'is {kind}; expected text'):
    compression.head(path)


@pytest.mark.parametrize(
  ('whole', 'kind'), [(gzip.compress(_TEXT), 'gzip'), (_zstd(_TEXT), 'zstd')]
)
def test_damage_is_told(tmp_path, whole, kind):
  path = tmp_path / 'log.csv'
  half = len(whole) // 2
  for damaged in (whole[:half], whole[:half] + b'abc' + whole[half:]):
    path.write_bytes(damaged)
    with pytest.raises(errors.UsageError, match=f'damaged {kind} file'):
      _read(path)


def test_parquet_is_known_by_content_or_name(tmp_path):
  for name, content, expected in [
    ('log', b'PAR1', True),
    ('log.PARQUET', b'1,2', True),
    ('log.csv', b'1,2', False),
  ]:
    path = tmp_path / name
    path.write_bytes(content)
    assert compression.is_parquet(path) == expected
  with pytest.raises(errors.UsageError, match='cannot be read'):
    compression.is_parquet(tmp_path / 'absent')
