"""Folders whose names mean something to patterns."""

import pytest

from dare_jax import disk_path


@pytest.mark.parametrize('name', ['lr[0.01]', 'a*b', '?', '[!a]', 'é %41#'])
def test_a_folders_name_is_no_pattern(tmp_path, name):
  folder = disk_path.absolute(tmp_path / name)
  (folder / 'steps' / '3').mkdir(parents=True)
  (tmp_path / 'axb').mkdir()
  for found in (folder.glob('s*'), (folder / 'steps').glob('3')):
    (path,) = found
    assert isinstance(path, disk_path.DiskPath)
    assert path.is_dir()
    assert str(path).startswith(f'{tmp_path}/{name}/steps')


def test_absolute(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', '/home/someone')
  assert str(disk_path.absolute('-a/../b')) == str(tmp_path / 'b')
  assert str(disk_path.absolute('~/run')) == '/home/someone/run'
