"""Bad configs, data and workdirs: exit 2, one clear line, nothing harmed."""

from collections.abc import Callable
import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from absl import flags
import pytest

from dare_jax import prepare
from dare_jax.experiments import run_config
from dare_jax.logs import options as log_options
from dare_jax.store import datasets
from tests import tiny


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('bad')
  tiny.write_log(folder / 'log.csv')
  datasets.prepare(log_options.of_section(tiny.config(folder).data))
  return folder


@pytest.fixture
def refused(capsys) -> Callable[[Callable[[], Any]], str]:
  """Runs a command's main; returns the error line, and checks it is one."""
  yield lambda main: tiny.refusal(main, capsys)
  flags.FLAGS.unparse_flags()


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


@pytest.mark.parametrize(
  ('fields', 'named'),
  [
    ({'model__name': 'dear'}, ["model.name 'dear'", "did you mean 'dare'"]),
    ({'model__plan': 'x'}, ["model.plan 'x'", 'decoupled']),
    ({'model__attention_dim': 0}, ['attention_dim', '0', '1 or more']),
    ({'model__representation_dim': 0}, ['representation_dim', '0']),
    ({'model__top_k': 21}, ['model.top_k=21', 'data.history_length=20']),
    ({'data__history_length': 0}, ['data.history_length=0', '1 or more']),
    ({'data__num_negatives': 0}, ['data.num_negatives=0', '1 or more']),
    ({'data__split': 'last'}, ["data.split='last'", 'leave_last_session']),
    ({'data__exclude': 'all'}, ["data.exclude='all'", 'user_log']),
    ({'data__name': 'tabao'}, ["data.name='tabao'", 'taobao']),
    ({'data__split': 'by_time'}, ['data.val_from', 'data.test_from']),
    ({'data__min_events': 10**6}, ['data.min_events=1000000', '0 of 60']),
    ({'data__min_history': 10**6}, ['data.min_history=1000000']),
    ({'optim__tables': 'adamw'}, ["optim.tables='adamw'", 'lazy_adam']),
    ({'optim__learning_rate': 0.0}, ['optim.learning_rate=0.0']),
    ({'train__batch_size': 0}, ['train.batch_size=0']),
    (
      {'eval__drop_last': True, 'eval__batch_size': 9_000},
      ['eval.drop_last=True', 'rows of val', 'eval.batch_size=9000'],
    ),
  ],
  ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_config(root, tmp_path, refused, fields, named):
  made = tiny.config(root, **fields)
  before = files(root / 'data')
  line = refused(lambda: tiny.run(made, tmp_path / 'run'))
  for text in named:
    assert text in line
  assert not (tmp_path / 'run').exists()  # A corrected command may use it.
  assert files(root / 'data') == before


def test_prepare_checks_the_config(root, refused):
  made = tiny.config(root, data__max_malformed_share=-1.0)
  line = refused(lambda: prepare.prepare(made))
  assert 'data.max_malformed_share=-1.0: expected a share from 0 to 1' in line


@pytest.mark.parametrize('field', ['split', 'exclude'])
def test_a_wrong_name_is_told_before_the_log_is_read(tmp_path, refused, field):
  made = tiny.config(tmp_path, **{f'data__{field}': 'wrong'})
  line = refused(lambda: tiny.run(made, tmp_path / 'run'))
  assert f"data.{field}='wrong': expected one of" in line
  assert not (tmp_path / 'data').exists()


_HEADER = 'user_id,item_id,category_id,timestamp\n'


@pytest.mark.parametrize(
  ('content', 'named'),
  [
    (None, ['log.csv', 'no such file']),
    ('', ['log.csv', 'empty']),
    (_HEADER, ['log.csv', 'no rows']),
    (
      _HEADER + 'u1,i1,c1,noon\n' * 5,
      ['line 2', 'timestamp: ex', 'noon'],
    ),
    (_HEADER + 'u1,i1,c1\n' * 5, ['log.csv', 'line 2']),
    (_HEADER.replace('category_id', 'kind') + 'u,i,c,1\n', ['category_id']),
    (_HEADER + 'u1,i1,,3\n' * 5, ['log.csv', 'line 2', 'empty category_id']),
  ],
  ids=['missing', 'empty', 'header', 'letters', 'count', 'column', 'category'],
)
def test_log(tmp_path, refused, content, named):
  if content is not None:
    (tmp_path / 'log.csv').write_text(content)
  line = refused(lambda: tiny.run(tiny.config(tmp_path), tmp_path / 'run'))
  for text in named:
    assert text in line
  assert not (tmp_path / 'run').exists()
  assert not files(tmp_path / 'data')


def _change_manifest(store, **fields):
  path = store / 'manifest.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _newer(store):
  _change_manifest(store, format_version=99)


def _cut_column(store):
  path = store / 'behaviors' / 'item_id.npy'
  path.write_bytes(path.read_bytes()[:-100])


def _flip_column(store):
  path = store / 'behaviors' / 'item_id.npy'
  content = bytearray(path.read_bytes())
  content[-50] ^= 1
  path.write_bytes(content)


def _cut_manifest(store):
  (store / 'manifest.json').write_text('{"format_version": 1,')


@pytest.mark.parametrize(
  ('damage', 'named'),
  [
    (_newer, ['format version 99', 'upgrade dare_jax']),
    (_cut_column, ['behaviors/item_id.npy', 'prepare it again']),
    (_flip_column, ['behaviors/item_id.npy', 'checksum']),
    (_cut_manifest, ['manifest.json', 'not readable']),
  ],
)
def test_store(root, tmp_path, refused, damage, named):
  made = tiny.config(root)
  made.data.data_dir = str(tmp_path / 'data')
  shutil.copytree(root / 'data', tmp_path / 'data')
  store = datasets.store_path(log_options.of_section(made.data))
  damage(store)
  before = files(tmp_path / 'data')
  line = refused(lambda: tiny.run(made, tmp_path / 'run'))
  for text in (str(store), *named):
    assert text in line
  assert files(tmp_path / 'data') == before


def test_workdir_that_cannot_be_written(root, tmp_path, refused):
  (tmp_path / 'file').write_text('mine')
  workdir = tmp_path / 'file' / 'run'  # Below a file: root cannot, either.
  line = refused(lambda: tiny.run(tiny.config(root), workdir))
  assert f'{workdir}: cannot be written' in line
  line = refused(lambda: tiny.run(tiny.config(root), tmp_path / 'file'))
  assert 'cannot be written' in line
  assert (tmp_path / 'file').read_text() == 'mine'


def test_data_dir_that_cannot_be_written(root, tmp_path, refused):
  (tmp_path / 'file').write_text('mine')
  made = tiny.config(root)
  made.data.data_dir = str(tmp_path / 'file' / 'data')
  line = refused(lambda: tiny.run(made, tmp_path / 'run'))
  assert f'data.data_dir={made.data.data_dir}: cannot be written' in line


def test_another_log_than_the_prepared_one(root, tmp_path, refused):
  made = tiny.config(root)
  made.data.input = str(tiny.write_log(tmp_path / 'b.csv', num_users=61))
  line = refused(lambda: tiny.run(made, tmp_path / 'run'))
  assert f'data.input={made.data.input}: another log' in line
  assert f'was prepared from {root / "log.csv"}' in line
  assert not (tmp_path / 'run').exists()


def test_workdir_of_another_run(root, tmp_path, refused):
  fields = run_config.flatten(tiny.config(root, model__name='twin'))
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  (tmp_path / 'checkpoints' / 'last' / '4').mkdir(parents=True)
  before = files(tmp_path)
  line = refused(lambda: tiny.run(tiny.config(root), tmp_path))
  assert 'model.name=dare, but the run in' in line
  assert 'model.name=twin; choose another --workdir' in line
  assert files(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize(
  ('arguments', 'named'),
  [
    (['--config.model.topk=3'], 'top_k'),
    (['--config.model.name=dear'], "did you mean 'dare'"),
    (['--config.train.batch_size=many'], 'batch_size'),
    (['--workdir=/dev/null/run'], '/dev/null/run'),
  ],
  ids=['typo', 'model', 'type', 'workdir'],
)
def test_real_command(root, tmp_path, arguments, named):
  command = [sys.executable, '-m', 'dare_jax.train', f'--workdir={tmp_path}/r']
  command += ['--config=configs/csv_log.py', *tiny.flags(tiny.config(root))]
  done = subprocess.run(
    [*command, *arguments],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr.count('\n') == 1, done.stderr
  assert done.stderr.startswith('error: ')
  assert named in done.stderr
  assert done.stdout == ''
