"""The shell of all commands, seen from outside: exit codes and one line."""

import subprocess
import sys
import time

from absl.testing import absltest
from absl.testing import parameterized


def command(*args):
  return subprocess.run(
    [sys.executable, '-m', *args],
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )


class CliTest(parameterized.TestCase):
  @parameterized.parameters(
    ('dare_jax.train', 'workdir'),
    ('dare_jax.evaluate', 'checkpoint'),
    ('dare_jax.prepare', 'dataset'),
  )
  def test_help_explains_and_exits_0(self, module, flag):
    done = command(module, '--help')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn(f'--{flag}', done.stdout)
    self.assertIn('configs/base.py', done.stdout)

  @parameterized.named_parameters(
    ('flag', ['dare_jax.train', '--wrkdir=x'], 'workdir'),
    ('stray', ['dare_jax.train', 'taobao'], 'taobao'),
    ('config', ['dare_jax.train', '--config=configs/taobo.py'], 'taobao'),
    ('field', ['dare_jax.train', '--config.model.topk=3'], 'top_k'),
    ('type', ['dare_jax.train', '--config.model.top_k=x'], 'top_k'),
    ('argument', ['dare_jax.train', '--config=configs/taobao.py:x=1'], 'model'),
    ('dataset', ['dare_jax.prepare', '--dataset=taobo'], 'taobao'),
    ('none', ['dare_jax.prepare'], '--dataset'),
    ('input', ['dare_jax.prepare', '--dataset=taobao'], '--input'),
    ('workdir', ['dare_jax.evaluate'], '--workdir'),
    ('run', ['dare_jax.evaluate', '--workdir=/nowhere'], 'config.json'),
    ('bench', ['dare_jax.bench', 'trian'], 'train'),
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

  def test_import_is_quick_and_touches_no_device(self):
    code = (
      'import sys, time; start = time.perf_counter()\n'
      'from dare_jax import models, search, embeddings\n'
      'spent = time.perf_counter() - start\n'
      'from jax._src import xla_bridge\n'
      'assert not xla_bridge._backends, xla_bridge._backends\n'
      'print(spent)'
    )
    seconds = []
    for _ in range(3):
      done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
      )
      seconds.append(float(done.stdout))
    self.assertLess(min(seconds), 2.0)

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
    seconds = []
    for _ in range(2):
      start = time.perf_counter()
      command('dare_jax.train', '--help')
      seconds.append(time.perf_counter() - start)
    self.assertLess(min(seconds), 5.0)


if __name__ == '__main__':
  absltest.main()
