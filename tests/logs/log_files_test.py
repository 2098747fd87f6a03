"""Which files a path, a folder or a pattern names, and in which order."""

import os
import pathlib

import polars as pl
import pytest

from dare_jax import errors
from dare_jax.logs import log_files


@pytest.fixture
def make(tmp_path, monkeypatch):
  """Makes files of one line each, below a folder that is the working one."""
  monkeypatch.chdir(tmp_path)

  def make_files(*names, content='1\n'):
    for name in names:
      path = pathlib.Path(name)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(content)

  return make_files


def _find(given):
  return log_files.find(str(given), 'a log')


def _names(given):
  return [part.name for part in _find(given)]


def test_a_folder_is_its_files_in_the_order_of_names(make, tmp_path):
  make(
    'logs/part-10.csv',
    'logs/part-9.csv',
    'logs/b/part-1.csv',
    'logs/a/part-2.csv',
    'logs/a/part-02.csv',
    'logs/part-1.csv.gz',
  )
  expected = [
    'a/part-02.csv',
    'a/part-2.csv',
    'b/part-1.csv',
    'part-1.csv.gz',
    'part-9.csv',
    'part-10.csv',
  ]
  assert _names('logs') == _names('logs/') == _names('./logs') == expected
  assert _names(tmp_path / 'logs') == expected
  part = _find(tmp_path / 'logs')[-1]
  assert part.path == tmp_path / 'logs' / 'part-10.csv'
  assert part.partition == {}


def test_what_lies_beside_a_log_is_left_out(make):
  make(
    'logs/part-0',
    'logs/_SUCCESS',
    'logs/_committed_123',
    'logs/.part-0.crc',
    'logs/part-0.crc',
    'logs/_temporary/0/part-1',
    'logs/.git/x',
    'logs/_day=1/part-0',
  )
  make('logs/empty', content='')
  assert _names('logs') == ['_day=1/part-0', 'part-0']
  assert _names('logs/*') == ['_day=1/part-0', 'part-0']
  assert _names('logs/_S*') == ['_SUCCESS']
  assert _names('logs/_SUCCESS') == ['_SUCCESS']


def test_patterns(make):
  make('a/x1.csv', 'a/x2.csv', 'b/x1.csv', 'b/deep/x3.csv', 'b/y1.csv')
  for pattern, expected in [
    ('a/*', ['x1.csv', 'x2.csv']),
    ('?/x1.csv', ['a/x1.csv', 'b/x1.csv']),
    ('[!a]/x*.csv', ['b/x1.csv']),
    ('**/x*.csv', ['a/x1.csv', 'a/x2.csv', 'b/deep/x3.csv', 'b/x1.csv']),
    ('b/**/*3.csv', ['deep/x3.csv']),
    ('b*', ['b/deep/x3.csv', 'b/x1.csv', 'b/y1.csv']),
    ('a/x[2].csv', ['x2.csv']),
  ]:
    assert _names(pattern) == expected, pattern


def test_a_name_that_exists_is_no_pattern(make):
  make('log[1].csv', 'log1.csv', '[ab]/x.csv', 'a/x.csv', 'q*.csv', 'qa.csv')
  assert _names('log[1].csv') == ['log[1].csv']
  assert _names('[ab]/x.csv') == ['x.csv']
  assert _find('[ab]/x.csv')[0].path == pathlib.Path('[ab]/x.csv')
  assert _names('[ab]/*') == _names('[ab]') == ['x.csv']
  assert _names('q*.csv') == ['q*.csv']
  assert _names('q?.csv') == ['q*.csv', 'qa.csv']


def test_folders_give_values(make):
  make('logs/day=2024-05-01/shop=a%20b%3D%C3%A9/part-0')
  make('logs/day=__HIVE_DEFAULT_PARTITION__/shop=/part-0')
  values = {
    'day=2024-05-01/shop=a%20b%3D%C3%A9/part-0': {
      'day': '2024-05-01',
      'shop': 'a b=é',
    },
    'day=__HIVE_DEFAULT_PARTITION__/shop=/part-0': {'day': None, 'shop': ''},
  }
  for given in ('logs', 'logs/*', 'logs/day=*/*/part*'):
    found = {part.name: part.partition for part in _find(given)}
    assert found == values, given
  # Those that the path itself names count, too.
  name = next(iter(values))
  for given in (f'logs/{name}', 'logs/day=2024-05-01', 'logs/*01/*/*'):
    assert [(p.name, p.partition) for p in _find(given)] == [
      (name, values[name])
    ], given


def test_links_are_followed_once(make):
  make('elsewhere/part-1', 'logs/part-0')
  os.symlink('../elsewhere', 'logs/linked')
  os.symlink('..', 'logs/up')
  os.symlink('../elsewhere/part-1', 'logs/part-2')
  names = _names('logs')
  assert names.count('linked/part-1') + names.count('up/elsewhere/part-1') == 1
  assert 'part-0' in names
  assert 'part-2' in names


def test_files_of_several_kinds_are_refused(make):
  make('ml/ml.inter', 'ml/ml.item', 'ml/ml.user.gz')
  with pytest.raises(
    errors.UsageError,
    match=r'3 kinds, ml.inter \(.inter\), ml.item \(.item\), .*a pattern',
  ):
    _find('ml')
  assert _names('ml/*.inter') == ['ml.inter']
  pl.DataFrame({'a': [1]}).write_parquet('ml/other')
  with pytest.raises(errors.UsageError, match='2 kinds'):
    _find('ml/*r')
  make('parts/part-0', 'parts/part-1.csv', 'parts/part-02.csv.gz')
  assert _names('parts') == ['part-0', 'part-1.csv', 'part-02.csv.gz']
  for other in ('README', 'item-0'):  # Not a part by its name.
    make(f'{other}/{other}', f'{other}/part-1.csv')
    with pytest.raises(
      errors.UsageError, match=rf'{other} \(no ending\), part'
    ):
      _find(other)
  make('days/log.2024-05-01', 'days/log.2024-05-02', 'days/log.3.gz')
  assert len(_find('days')) == 3


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ('', r'data\.input is not set: expected the path of a log'),
    ('absent.csv', 'data.input=absent.csv: no such file; expected a log'),
    ('absent/*.csv', 'no such file, and none whose name has this pattern'),
    ('x/*.csv', 'no such file, and none'),
    ('x', 'the folder has no files'),
    ('empty.csv', 'empty.csv: the log is empty'),
    ('broken/*', 'broken/0'),
    ('n' * 300, 'too long'),
  ],
)
def test_what_is_not_there_is_told(make, given, message):
  make('x/_SUCCESS')
  make('empty.csv', content='')
  make('broken/1')
  os.symlink('nowhere', 'broken/0')
  with pytest.raises(errors.UsageError, match=message):
    _find(given)
