"""The shell of all commands, seen from outside: exit codes and one line."""

import os
import pathlib
import subprocess
import sys
import time

from absl.testing import parameterized
import ml_collections
import pytest

from dare_jax import config_flag
from dare_jax.configs import base

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_OWN = """from dare_jax.configs import base

def get_config(arg=''):
  config = base.get_config()
  config.data.max_padding = 0.2
  config.data.columns.order = ('a', 'b')
  config.train.steps = 4
  config.model.plan = 'four'
  config.model.aux_head = False
  return base.apply_arg(config, arg)
"""
_PROCESSES = ('distributed', 'coordinator', 'num_processes', 'process_id')
# Prints a field of the config, parsed as the commands do.
_SHOW = """
import sys
from dare_jax import cli, config_flag
config = config_flag.define()
shown = sys.argv.pop()
cli.run(lambda: print(eval(shown, {'c': config.value})), sys.argv, 'quickstart')
"""


def command(*args, cwd=None):
  return run('-m', *args, cwd=cwd)


def run(*args, cwd=None):
  return subprocess.run(
    [sys.executable, *args],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
    cwd=cwd,
    env=os.environ | {'PYTHONPATH': str(_ROOT)},
  )


def _optional(config, path=''):
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _optional(value, f'{path}{name}.')
    elif value is None:
      yield f'{path}{name}'


class CliTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  @parameterized.named_parameters(
    ('train', 'dare_jax.train', ('config', 'workdir', *_PROCESSES)),
    (
      'evaluate',
      'dare_jax.evaluate',
      ('workdir', 'split', 'checkpoint', *_PROCESSES),
    ),
    ('prepare', 'dare_jax.prepare', ('config', 'dataset', 'input', 'data_dir')),
    (
      'predict',
      'dare_jax.predict',
      (
        *('bundle', 'workdir', 'checkpoint', 'input', 'output', 'history'),
        *('candidates', 'top', 'columns', 'data_dir', 'shard'),
      ),
    ),
    (
      'compare',
      'dare_jax.compare',
      ('config', 'models', 'seeds', 'output', 'base'),
    ),
    (
      'bench',
      'dare_jax.bench tree',
      ('config', 'output'),
    ),
    (
      'bench_train',
      'dare_jax.bench train',
      ('config', 'output', 'rows', 'profile', 'seconds'),
    ),
  )
  @pytest.mark.quick_cases('train', 'prepare', 'predict', 'bench')
  def test_help_explains_and_exits_0(self, call, expected):
    done = command(*call.split(), '--help')
    self.assertEqual(done.returncode, 0, done.stderr)
    lines = done.stdout.splitlines()
    for flag in expected:
      self.assertIn(f'  --{flag}', lines)
    self.assertNotIn('Runs one benchmark', done.stdout)
    self.assertIn('configs/base.py', done.stdout)

  @parameterized.named_parameters(
    ('flag', ['dare_jax.train', '--wrkdir=x'], 'workdir'),
    ('stray', ['dare_jax.train', 'taobao'], 'taobao'),
    ('config', ['dare_jax.train', '--config=configs/taobo.py'], 'taobao'),
    ('field', ['dare_jax.train', '--config.model.topk=3'], 'top_k'),
    ('type', ['dare_jax.train', '--config.model.top_k=x'], 'top_k'),
    ('unknown', ['dare_jax.train', '--config.model.zzz=3'], 'field zzz'),
    ('separate', ['dare_jax.train', '--config', 'nofile.py'], 'no such file'),
    ('quote', ['dare_jax.train', '--config.seed="'], "with base 10: '\"' ("),
    ('widths', ['dare_jax.train', '--config.model.hidden=abc'], 'model.hidden'),
    (
      'none',
      ['dare_jax.train', '--config.train.batch_size=None'],
      'train.batch_size=None: expected a value',
    ),
    (
      'alone',
      ['dare_jax.train', '--distributed'],
      'SLURM, Open MPI or Kubernetes job',
    ),
    ('argument', ['dare_jax.train', '--config=configs/taobao.py:x=1'], 'model'),
    ('dataset', ['dare_jax.prepare', '--dataset=taobo'], 'taobao'),
    ('no_data', ['dare_jax.prepare'], '--dataset'),
    ('input', ['dare_jax.prepare', '--dataset=taobao'], '--input'),
    ('workdir', ['dare_jax.evaluate'], '--workdir'),
    ('run', ['dare_jax.evaluate', '--workdir=/nowhere'], 'config.json'),
    ('bench', ['dare_jax.bench', 'trian'], 'train'),
    ('predict', ['dare_jax.predict', '--inptu=x'], 'input'),
    ('no_model', ['dare_jax.predict', '--input=x'], 'neither is given'),
    ('no_input', ['dare_jax.predict', '--workdir=x'], '--input is missing'),
  )
  @pytest.mark.quick_cases(
    *('flag', 'stray', 'config', 'field', 'type', 'none', 'alone'),
    *('dataset', 'input', 'workdir', 'bench', 'no_model'),
  )
  def test_wrong_usage_is_one_line_and_exit_2(self, args, named):
    done = command(*args)
    self.assertEqual(done.returncode, 2, done.stderr)
    lines = done.stderr.strip().splitlines()
    self.assertLen(
      [line for line in lines if 'preparing' not in line], 1, lines
    )
    self.assertStartsWith(lines[-1], 'error: ')
    self.assertIn(named, lines[-1])

  @parameterized.named_parameters(
    (
      'bare',
      'from ml_collections import ConfigDict as base',
      'base.get_config',
    ),
    ('import', 'import nowhere_to_be_found', 'nowhere_to_be_found'),
    ('syntax', 'def (', 'invalid syntax (own.py, line 1)'),
    ('file', 'open("none.json")', 'none.json'),
  )
  def test_own_config_that_is_wrong(self, first, named):
    """One line, whatever is in the file."""
    text = f'{first}\ndef get_config():\n  return base()\n'
    (self.folder / 'own.py').write_text(text)
    for more in ((), ('--config.seed=3',)):
      done = command(
        'dare_jax.train', '--config=own.py', *more, cwd=self.folder
      )
      self.assertEqual(done.returncode, 2, done.stderr)
      self.assertStartsWith(done.stderr, 'error: --config=own.py: ')
      self.assertIn(named, done.stderr)
      self.assertEqual(done.stderr.count('\n'), 1)

  @parameterized.parameters(
    (['--config=configs/csv_log.py'],),
    (['--config', 'configs/csv_log.py'],),
    (['-config', 'configs/csv_log.py:seed=1'],),
  )
  def test_shipped_config_from_any_folder(self, flags):
    done = run('-c', _SHOW, *flags, 'c.data.name', cwd=self.folder)
    self.assertEqual(done.stdout, 'csv_log\n', done.stderr)

  @parameterized.parameters(
    (['--config=configs/csv_log.py:seed=1'],),
    (['--config', 'configs/csv_log.py'],),
  )
  def test_fields_before_the_config(self, flags):
    shown = '(c.data.name, c.seed, c.model.top_k)'
    fields = ['--config.seed=7', '--config.model.top_k=3']
    done = run('-c', _SHOW, *fields, *flags, shown)
    self.assertEqual(done.stdout, "('csv_log', 7, 3)\n", done.stderr)

  def test_none_takes_a_value_back(self):
    """For every field that may have none, of each type."""
    (self.folder / 'own.py').write_text(_OWN)
    optional = sorted(_optional(base.get_config()))
    self.assertGreater(len(optional), 20)
    given = [f'--config.{field}=None' for field in optional]
    shown = f'[c.{", c.".join(optional)}]'
    done = run('-c', _SHOW, '--config=own.py', *given, shown, cwd=self.folder)
    self.assertEqual(done.stdout, f'{[None] * len(optional)}\n', done.stderr)

  def test_values_of_each_type(self):
    given = {
      'train.steps': 7,
      'data.max_padding': 0.5,
      'data.train_from': 1_600_000_000,
      'data.val_from': '2020-09-14',
      'data.test_from': 1_600_172_800.5,
      'model.plan': 'three',
      'model.aux_head': True,
      'data.columns.order': ('x', 'y'),
      'model.hidden': (8, 4),
    }
    flags = [f'--config.{field}={value}' for field, value in given.items()]
    shown = f'[c.{", c.".join(given)}]'
    done = run('-c', _SHOW, *flags, '--config.seed=1', '--config.seed=2', shown)
    self.assertEqual(done.stdout, f'{[*given.values()]}\n', done.stderr)

  @parameterized.parameters(
    ('NULL,nan', ('NULL', 'nan')),
    ('\\N', ('\\N',)),
    ('\\N,NULL', ('\\N', 'NULL')),
    ('', ('',)),
    ('"None",', ('None',)),
    ("('a b', 'c,d')", ('a b', 'c,d')),
    ('N/A', ('N/A',)),
    ('a b,c', ('a b', 'c')),
    ('-1,0', (-1, 0)),
  )
  def test_texts_of_a_tuple(self, given, expected):
    self.assertEqual(config_flag._TupleParser().parse(given), expected)

  def test_import_is_quick_and_touches_no_device(self):
    code = (
      'import sys, time; start = time.process_time()\n'
      'from dare_jax import models, search, embeddings\n'
      'spent = time.process_time() - start\n'
      'from jax._src import xla_bridge\n'
      'assert not xla_bridge._backends, xla_bridge._backends\n'
      'print(spent)'
    )

    def seconds():
      done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
      )
      return float(done.stdout)

    self.assertTrue(any(seconds() < 2.0 for _ in range(3)))

  @parameterized.parameters(('Event loop is closed', False), ('other', True))
  def test_what_a_library_cannot_raise(self, message, is_shown):
    """As tensorstore's threads do after a disk was full."""
    code = f"""
from dare_jax import cli, errors
class Late:
  def __del__(self):
    raise RuntimeError({message!r})
def main():
  Late()
  raise errors.UsageError('the disk is full')
cli.run(main, ['command'])
"""
    done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=False
    )
    self.assertEqual(done.returncode, 2)
    self.assertIn('error: the disk is full', done.stderr)
    self.assertEqual('Traceback' in done.stderr, is_shown, done.stderr)

  def test_train_help_is_quick(self):

    def seconds():
      start = time.perf_counter()
      command('dare_jax.train', '--help')
      return time.perf_counter() - start

    self.assertTrue(any(seconds() < 5.0 for _ in range(2)))


def test_help_ends_quietly_where_its_reader_has_seen_enough():
  """A pipe whose reader is gone, as that of `head` after its last line."""
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run(
    [sys.executable, '-m', 'dare_jax.prepare', '--help'],
    stdout=write,
    stderr=subprocess.PIPE,
    text=True,
    check=False,
  )
  os.close(write)
  assert (done.returncode, done.stderr) == (0, '')


def test_export_without_its_library_names_the_extra():
  code = (
    "import runpy, sys; sys.modules['flatbuffers'] = None;"
    " sys.argv = ['export', '--workdir=a', '--output=b'];"
    " runpy.run_module('dare_jax.export', run_name='__main__')"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 2
  assert "pip install -e '.[export]'" in done.stderr
