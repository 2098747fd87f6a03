"""Half a bundle, a changed or another one is told in one line."""

import json
import shutil

import pytest

from dare_jax import bundle
from dare_jax import errors
from dare_jax.bundle import manifest


@pytest.fixture
def copy(root, tmp_path):
  return shutil.copytree(root / 'bundle', tmp_path / 'copy')


def _refusal(path):
  with pytest.raises(errors.UsageError) as caught:
    bundle.open(path)
  message = str(caught.value)
  assert 'python -m dare_jax.export' in message
  assert '\n' not in message
  return message


def _change_one_bit(path):
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('file', 'damage', 'told'),
  [
    ('tables/item_attention.npy', _change_one_bit, 'does not match its hash'),
    ('ids/item.hashes.npy', lambda path: path.unlink(), 'is missing'),
    ('programs', shutil.rmtree, 'is missing'),
    (
      'programs/search-any.jax',
      lambda path: path.write_bytes(path.read_bytes()[:99]),
      'has 99 bytes in place of',
    ),
    ('manifest.json', lambda path: path.unlink(), 'no bundle there'),
    ('manifest.json', lambda path: path.write_text('{"f'), 'not readable'),
    ('manifest.json', lambda path: path.write_text('{}'), 'not of a bundle'),
    (
      'manifest.json',
      lambda path: path.write_text(path.read_text().replace('"dare"', '"din"')),
      'manifest.json was changed',
    ),
    (
      'manifest.json',
      lambda path: path.write_text('{"format": 7, "versions": {}}'),
      'format version 7, but this dare_jax reads version 1',
    ),
  ],
)
def test_what_is_damaged_is_told(copy, file, damage, told):
  damage(copy / file)
  assert told in _refusal(copy)


def test_no_folder_and_a_file_are_no_bundle(tmp_path):
  assert 'no bundle there' in _refusal(tmp_path / 'none')
  (tmp_path / 'file').write_text('')
  assert 'no bundle there' in _refusal(tmp_path / 'file')


@pytest.mark.slow
def test_programs_that_cannot_be_read_are_told(copy, root):
  """As those of a newer jaxlib: whole, but of no use here."""
  (copy / 'programs' / 'search-any.jax').write_bytes(b'of another time')
  content = json.loads((copy / manifest.FILE).read_text())
  content['files'] = manifest.files_in(copy)
  content['versions']['jaxlib'] = '99.0'
  sealed = manifest.seal(content)
  (copy / manifest.FILE).write_text(json.dumps(sealed))
  message = _refusal(copy)
  assert 'written by jaxlib 99.0, cannot be read by jaxlib' in message
  assert f'--workdir={root / "run"}' in message
