"""The log that a store was made from: moved, gone, changed, another."""

import json
import pathlib
import re

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.data import data_card
from dare_jax.data import options as data_options
from dare_jax.logs import options as log_options
from dare_jax.store import datasets
from dare_jax.store import log_origin
from tests import tiny


@pytest.fixture
def data(tmp_path):
  """A data section whose log was prepared."""
  made = tiny.config(tmp_path).data
  tiny.write_log(tmp_path / 'log.csv', num_users=20)
  datasets.prepare(log_options.of_section(made))
  return made


def _other(folder: pathlib.Path) -> pathlib.Path:
  return tiny.write_log(folder / 'other.csv', num_users=21)


def test_a_log_that_was_moved_or_removed_is_not_missed(data, tmp_path):
  moved = (tmp_path / 'log.csv').rename(tmp_path / 'moved.csv')
  datasets.open_or_prepare(log_options.of_section(data))
  data.input = str(moved)
  datasets.open_or_prepare(log_options.of_section(data))
  data.input = None
  datasets.open_or_prepare(log_options.of_section(data))


def test_a_relative_path_is_the_one_that_was_given(tmp_path, monkeypatch):
  data = tiny.config(tmp_path).data
  tiny.write_log(tmp_path / 'log.csv', num_users=20)
  data.input = 'log.csv'
  monkeypatch.chdir(tmp_path)
  store = datasets.prepare(log_options.of_section(data))
  assert log_origin.path_of(store) == str(tmp_path / 'log.csv')
  folder = tmp_path / 'elsewhere'
  folder.mkdir()
  monkeypatch.chdir(folder)
  datasets.open_or_prepare(log_options.of_section(data))
  _other(folder).rename(folder / 'log.csv')
  with pytest.raises(errors.UsageError, match='another log'):
    datasets.open_or_prepare(log_options.of_section(data))


@pytest.mark.parametrize('exists', [True, False])
def test_another_log_is_refused(data, tmp_path, exists):
  other = tmp_path / 'other.csv'
  if exists:
    _other(tmp_path)
  data.input = str(other)
  with pytest.raises(errors.UsageError) as caught:
    datasets.open_or_prepare(log_options.of_section(data))
  line = str(caught.value)
  reason = 'another log' if exists else 'no such file'
  assert f'data.input={other}: {reason};' in line
  assert f'prepared from {tmp_path / "log.csv"}.' in line
  for way_out in ('data.data_dir', 'dare_jax.prepare', 'leave data.input out'):
    assert way_out in line


def test_a_log_that_changed_is_refused(data, tmp_path):
  log = tmp_path / 'log.csv'
  before = log.stat().st_size
  with log.open('a') as file:
    file.write('u1,i1,c1,99\n')
  match = f'has changed .*{before:,} bytes then, {before + 12:,} now'
  with pytest.raises(errors.UsageError, match=match):
    datasets.open_or_prepare(log_options.of_section(data))
  datasets.prepare(log_options.of_section(data))
  datasets.open_or_prepare(log_options.of_section(data))


def test_a_store_that_does_not_say_is_opened(data, tmp_path):
  manifest = datasets.store_path(log_options.of_section(data)) / 'manifest.json'
  content = json.loads(manifest.read_text())
  del content['provenance']['origin']
  manifest.write_text(json.dumps(content))
  data.input = str(_other(tmp_path))
  store = datasets.open_or_prepare(log_options.of_section(data))
  assert log_origin.path_of(store) is None


def test_prepare_says_what_it_replaces(data, tmp_path, capsys):
  datasets.prepare(log_options.of_section(data))
  assert 'in place of' not in capsys.readouterr().err
  data.input = str(_other(tmp_path))
  store = datasets.prepare(log_options.of_section(data))
  told = capsys.readouterr().err.splitlines()
  assert f'prepared there from {tmp_path / "log.csv"}:' in told[0]
  assert log_origin.path_of(store) == data.input


@pytest.mark.parametrize('name', ['complete_journey', 'synthetic_lifelong'])
@pytest.mark.parametrize('make', [datasets.prepare, datasets.open_or_prepare])
def test_a_dataset_without_a_log_takes_none(tmp_path, name, make):
  data = tiny.config(tmp_path, data__name=name).data
  with pytest.raises(errors.UsageError, match=f'{name} reads no log.*csv_log'):
    make(log_options.of_section(data))


@pytest.mark.parametrize('size', [0, 1, 1 << 16, (1 << 22) - 1, 5_000_000])
def test_what_is_sampled(tmp_path, size):
  file = tmp_path / 'file'
  content = bytearray(np.random.default_rng(0).bytes(size))
  file.write_bytes(content)
  first = log_origin.look_at(str(file))
  assert first == log_origin.look_at(str(file))
  assert first.size == size
  # Up to 4 MB every byte counts, then the first and the last ones do.
  every = range(0, size, 9_973) if size < 1 << 22 else [0, 65_535]
  for place in [*every, size - 1] if size else []:
    content[place] ^= 1
    file.write_bytes(content)
    assert not first.has_content_of(log_origin.look_at(str(file)))
    content[place] ^= 1


def test_a_folder_is_all_its_files(tmp_path):
  folder = tmp_path / 'folder'
  (folder / 'below').mkdir(parents=True)
  (folder / 'a').write_text('abc')
  (folder / 'below' / 'b').write_text('de')
  first = log_origin.look_at(str(folder))
  assert first.size == 5
  (folder / 'below' / 'b').write_text('ef')
  assert not first.has_content_of(log_origin.look_at(str(folder)))


def test_a_log_of_parts_is_known_by_their_names_and_bytes(tmp_path):
  data = tiny.config(tmp_path).data
  folder = tmp_path / 'day=1'
  folder.mkdir()
  lines = tiny.write_log(tmp_path / 'log.csv', num_users=20).read_text()
  head, *rows = lines.splitlines(keepends=True)
  for name, part in [('p-1.csv', rows[:99]), ('p-2.csv', rows[99:])]:
    (folder / name).write_text(head + ''.join(part))
  data.input = str(folder)
  store = datasets.prepare(log_options.of_section(data))
  files = store.manifest['provenance']['origin']['files']
  assert [name for name, _ in files] == ['day=1/p-1.csv', 'day=1/p-2.csv']
  card = data_card.data_card(store, data_options.of_section(data))
  size = sum((tmp_path / name).stat().st_size for name, _ in files)
  line = f'files: +2 of {size:,} bytes: day=1/p-1.csv to day=1/p-2.csv'
  assert re.search(line, card)
  (folder / '_SUCCESS').touch()
  for same in (str(folder), f'{folder}/*.csv', f'{tmp_path}/day*'):
    data.input = same
    datasets.open_or_prepare(log_options.of_section(data))
  moved = tmp_path / 'moved'
  moved.mkdir()
  data.input = str(folder.rename(moved / 'day=1'))
  datasets.open_or_prepare(log_options.of_section(data))
  folder = moved / 'day=1'
  (folder / 'p-3.csv').write_text(head + rows[0])
  with pytest.raises(errors.UsageError, match='another log'):
    datasets.open_or_prepare(log_options.of_section(data))
  (folder / 'p-3.csv').unlink()
  datasets.open_or_prepare(log_options.of_section(data))
  data.input = str(folder.rename(moved / 'day=2'))
  with pytest.raises(errors.UsageError, match='another log'):
    datasets.open_or_prepare(log_options.of_section(data))


def test_many_files_are_sampled_at_their_ends(tmp_path):
  folder = tmp_path / 'folder'
  folder.mkdir()
  for number in range(600):
    (folder / f'{number}').write_bytes(bytes(3 << 16))
  first = log_origin.look_at(str(folder))
  for number in (0, 599):
    for place in (0, (3 << 16) - 1):
      content = bytearray(3 << 16)
      content[place] = 1
      (folder / f'{number}').write_bytes(content)
      assert not first.has_content_of(log_origin.look_at(str(folder)))
    (folder / f'{number}').write_bytes(bytes(3 << 16))
  assert first.has_content_of(log_origin.look_at(str(folder)))
