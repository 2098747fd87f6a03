"""Names of sets, and logs that hold them as text or as lists."""

import itertools

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax.logs import options as log_options
from dare_jax.logs.values import set_values
from dare_jax.store import datasets
from tests import tiny

_TAGS = [['b', 'a'], [], ['a', 'b', 'a'], ['c'], None]


def test_a_name_does_not_depend_on_order_and_repeats():
  for written in itertools.permutations(['x', 'y', 'y', '']):
    assert set_values.label('|'.join(written)) == 'x|y'
    assert set_values.label(list(written)) == 'x|y'
  assert set_values.label('x|y') == 'x|y'


def test_numbers_and_missing_values():
  assert set_values.labels([3, '3', [3.0], (3, None)], '|') == ['3'] * 4
  assert set_values.labels([None, float('nan'), '', []], ',') == [
    *(None, None, '', '')
  ]


def test_series_of_text_and_of_lists():
  text = pl.Series('tags', ['b|a', '', None, 'a|b', 'a'])
  found = set_values.of_series(text, '|')
  assert found.to_list() == ['a|b', '', None, 'a|b', 'a']
  assert found.name == 'tags'
  lists = set_values.of_series(pl.Series('tags', _TAGS), '|')
  assert lists.to_list() == ['a|b', '', 'a|b', 'c', None]


def test_raw_values_that_a_caller_gives():
  named = lambda raw: set_values.named('tags', raw, ('price',), {'tags': ';'})
  for raw in (['b;a', 'a'], [['a', 'b'], 'a'], np.array(['b;a', 'a'])):
    assert named(raw) == ['a;b', 'a']
  assert named(pl.Series([['b', 'a'], ['a']])) == ['a;b', 'a']
  assert set_values.named('price', [3], ('price',), {}) == ['2.828 to 4']
  assert set_values.named('item', [3], ('price',), {}) == [3]
  with pytest.raises(errors.UsageError, match="holds ';'"):
    named([['a;b']])


def test_bounds(monkeypatch):
  names = pl.Series(['a|b|c', 'd'])
  set_values.check('tags', names, '|')
  monkeypatch.setattr(set_values, 'MOST_MEMBERS', 3)
  with pytest.raises(errors.UsageError, match='made of 4 members, and 3 are'):
    set_values.check('tags', names, '|')
  monkeypatch.setattr(set_values, 'MOST_IN_A_SET', 2)
  with pytest.raises(errors.UsageError, match=r"3 members \('a\|b\|c'\)"):
    set_values.check('tags', names, '|')


def _frame() -> pl.DataFrame:
  return pl.DataFrame(
    {
      'user_id': ['u1'] * 5,
      'item_id': ['i1', 'i2', 'i3', 'i4', 'i5'],
      'category_id': ['c'] * 5,
      'timestamp': [1, 2, 3, 4, 5],
      'tags': _TAGS,
    }
  )


def _store(root, name, **fields):
  made = tiny.config(
    root, data__columns__fields=('tags',), data__columns__sets=('tags',)
  )
  for field, value in {'data__input': str(root / name), **fields}.items():
    made.update_from_flattened_dict({field.replace('__', '.'): value})
  return datasets.open_or_prepare(log_options.of_section(made.data))


def _values(store, field='tags'):
  ids = np.asarray(store.behaviors.columns[f'{field}_id'])
  return store.raw_ids(field).gather(ids - 2).to_list()


def test_lists_and_text_are_the_same_sets(tmp_path):
  frame = _frame()
  frame.write_parquet(tmp_path / 'lists.parquet')
  text = frame.with_columns(pl.col('tags').list.join(' ; '))
  text.write_csv(tmp_path / 'text.csv')
  expected = ['a|b', '', 'a|b', 'c', '']
  lists = _store(tmp_path, 'lists.parquet')
  assert _values(lists) == expected
  assert lists.sets == {'tags': '|'}
  texts = _store(tmp_path, 'text.csv', data__columns__set_separator=';')
  assert _values(texts) == [name.replace('|', ';') for name in expected]
  np.testing.assert_array_equal(
    lists.behaviors.columns['tags_id'], texts.behaviors.columns['tags_id']
  )


def test_lists_of_numbers_and_missing_texts(tmp_path):
  tags = pl.Series('tags', [[10, 9], [9, None], [], None, [9.0]], strict=False)
  _frame().with_columns(tags).write_parquet(tmp_path / 'log.parquet')
  expected = ['10|9', '9', '', '', '9']
  assert _values(_store(tmp_path, 'log.parquet')) == expected
  text = _frame().with_columns(
    tags=pl.Series([['a', 'NULL'], ['NULL'], ['a'], [], None])
  )
  text.write_parquet(tmp_path / 'text.parquet')
  missing = {'data__columns__missing': ('NULL',)}
  store = _store(tmp_path, 'text.parquet', **missing)
  assert _values(store) == ['a', '', 'a', '', '']


def test_a_member_that_holds_the_separator_is_malformed(tmp_path, capsys):
  tags = pl.Series('tags', [['a|b'], ['c'], ['c'], ['c'], ['c']])
  _frame().with_columns(tags).write_parquet(tmp_path / 'log.parquet')
  text = tiny.refusal(lambda: _store(tmp_path, 'log.parquet'), capsys)
  assert "tags: a member holds '|'" in text


def test_what_is_no_set_is_refused(tmp_path, capsys):
  frame = _frame().with_columns(price=pl.lit(1.0))
  frame.write_parquet(tmp_path / 'log.parquet')
  for fields, named in (
    ({'set_separator': ''}, 'data.columns.set_separator is empty'),
    ({'fields': ('price',)}, "data.columns.sets: 'tags' is no further field"),
    ({'numbers': ('tags',)}, "'tags' is in data.columns.numbers as well"),
    ({'sets': ()}, 'name it in data.columns.sets'),
  ):
    given = {f'data__columns__{name}': x for name, x in fields.items()}
    prepare = lambda given=given: _store(tmp_path, 'log.parquet', **given)
    assert named in tiny.refusal(prepare, capsys)


def test_logs_without_sets_are_prepared_where_they_were():
  options = log_options.LogOptions('csv_log', '/data', 'log.csv')
  ml = log_options.LogOptions('movielens_1m', '/data', 'ml.zip')
  hashes = [datasets.store_path(one).name for one in (options, ml)]
  assert hashes == ['csv_log-26b998ef', 'movielens_1m-caf5e947']
