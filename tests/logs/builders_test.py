"""The builders on tiny logs in the original formats, flaws included."""

from __future__ import annotations

import datetime
import gzip
import pathlib
from typing import Any
import zipfile

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax.logs import event_log
from dare_jax.logs import options as log_options
from dare_jax.store import datasets


def read(data: Any) -> event_log.EventLog:
  cls, _ = datasets.builder_class(data.name)
  return cls(options=data, data_dir=data.data_dir).read_log()


def events(log: event_log.EventLog, field: str = 'item') -> dict[Any, list]:
  """Returns raw user -> raw values of a field, in the log's order."""
  values = [None, None, *log.raw_ids[field]]
  ids = log.columns[f'{field}_id']
  return {
    user: [values[i] for i in ids[log.offsets[row] : log.offsets[row + 1]]]
    for row, user in enumerate(log.raw_ids['user'])
  }


# Taobao.

_IN_RANGE = 1_511_600_000
_TAOBAO = (
  f'9,100,7,pv,{_IN_RANGE + 50}\n'
  f'9,101,7,pv,{_IN_RANGE + 10}\n'
  f'4,100,8,pv,{_IN_RANGE + 30}\n'
  f'9,102,7,buy,{_IN_RANGE + 20}\n'
  f'9,103,8,cart,{_IN_RANGE + 20}\n'
  '4,104,8,pv,-2134949234\n'
  '4,105,8,pv,1512316800\n'  # the first second after the range
  '4,106,8,pv,1511539200\n'  # its first
)


@pytest.fixture
def taobao(data, write):
  data.name = 'taobao'
  data.input = write('UserBehavior.csv', _TAOBAO)
  return data


def test_taobao_keeps_views_in_time_order_and_reports(taobao):
  log = read(taobao)
  assert events(log) == {9: [101, 100], 4: [104, 106, 100, 105]}
  assert events(log, 'category') == {9: [7, 7], 4: [8, 8, 8, 8]}
  assert log.report.rows_read == 8
  assert log.report.rows_kept == 6
  assert log.report.dropped == {'type other than pv': 2}
  notes = '\n'.join(log.report.notes)
  assert '2 kept rows have time stamps outside' in notes
  assert '1 item occurs with several categories' in notes


def test_taobao_file_order(taobao):
  taobao.sort_by_time = False
  assert events(read(taobao)) == {9: [100, 101], 4: [100, 104, 105, 106]}


def test_taobao_truncated_last_line(taobao, write):
  taobao.input = write('cut.csv', _TAOBAO + '4,107,8,p')
  taobao.max_malformed_share = 0.0
  log = read(taobao)
  assert log.report.dropped['truncated last line'] == 1
  assert log.report.rows_kept == 6


@pytest.mark.parametrize(
  'bad',
  [
    '4,107,8,view,1511600000',
    'u4,107,8,pv,1511600000',
    '4,-107,8,pv,1511600000',
    '4,99999999999999999999,8,pv,1511600000',
    '4,107,8,pv',
    '4,107,,pv,1511600000',
    '4,107,8,pv,yesterday',
  ],
)
def test_taobao_malformed_rows(taobao, write, bad):
  taobao.input = write('bad.csv', _TAOBAO + f'{bad}\n')
  with pytest.raises(errors.UsageError, match='1 of 9 rows .*line 9'):
    read(taobao)
  taobao.max_malformed_share = 0.2
  assert read(taobao).report.malformed == 1


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('', 'the log is empty'),
    ('4,107,pv,1511600000\n', r'\(5\); line 1 has 4'),
    ('4,107,8,buy,1511600000\n', 'no usable rows'),
  ],
)
def test_taobao_refuses_other_files(taobao, write, content, message):
  taobao.input = write('other.csv', content)
  with pytest.raises(errors.UsageError, match=message):
    datasets.prepare(log_options.of_section(taobao))


def test_a_missing_file_is_refused_and_existing_data_stays(taobao):
  store = datasets.prepare(log_options.of_section(taobao))
  pathlib.Path(taobao.input).unlink()
  with pytest.raises(errors.UsageError, match='no such file'):
    datasets.prepare(log_options.of_section(taobao))
  assert (
    datasets.open_or_prepare(log_options.of_section(taobao)).fingerprint
    == store.fingerprint
  )


# Tmall.

_TMALL_HEADER = (
  'user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n'
)
_TMALL = _TMALL_HEADER + (
  '5,10,1,3,2,1111,0\n'
  '5,11,1,3,2,829,0\n'  # lost its leading zero
  '5,12,1,,,0829,0\n'  # the file has empty brands
  '5,13,1,3,2,0511,0\n'
  '5,14,1,3,2,0829,2\n'  # a purchase
)


@pytest.fixture
def tmall(data, write):
  data.name = 'tmall'
  data.input = write('user_log_format1.csv', _TMALL)
  return data


def _midnight(month: int, day: int) -> int:
  stamp = datetime.datetime(2014, month, day, tzinfo=datetime.UTC)
  return int(stamp.timestamp())


def test_tmall_pads_days_and_keeps_the_order_within_one(tmall):
  log = read(tmall)
  assert events(log) == {5: [13, 11, 12, 10]}
  np.testing.assert_array_equal(
    log.columns['timestamp'],
    [_midnight(5, 11), _midnight(8, 29), _midnight(8, 29), _midnight(11, 11)],
  )
  assert log.report.dropped == {'action other than click': 1}
  assert '1 kept rows had time stamps without' in '\n'.join(log.report.notes)


@pytest.mark.parametrize(
  'bad',
  [
    '5,10,1,3,2,1301,0',  # month 13
    '5,10,1,3,2,0230,0',
    '5,10,1,3,2,0229,0',  # 2014 was no leap year
    '5,10,1,3,2,0431,0',
    '5,10,1,3,2,0000,0',
    '5,10,1,3,2,29,0',
    '5,10,1,3,2,20140829,0',
    '5,10,1,3,2,0829,7',
    '5,10,1,3,0829,0',
    '5,,1,3,2,0829,0',
  ],
)
def test_tmall_malformed_rows(tmall, write, bad):
  tmall.input = write('bad.csv', f'{_TMALL}{bad}\n')
  tmall.max_malformed_share = 1.0
  log = read(tmall)
  assert log.report.malformed == 1
  assert log.report.examples[0].startswith(f'line 7: {bad!r} (')
  assert events(log) == {5: [13, 11, 12, 10]}


def test_tmall_names_the_day_that_it_expects(tmall, write):
  tmall.input = write('bad.csv', f'{_TMALL}5,10,1,3,2,1301,0\n')
  message = "time_stamp: expected a day of 2014 as mmdd, got '1301'"
  with pytest.raises(errors.UsageError, match=message):
    read(tmall)


def test_tmall_needs_its_header(tmall, write):
  tmall.input = write('bare.csv', _TMALL.removeprefix(_TMALL_HEADER))
  with pytest.raises(errors.UsageError, match='header with the columns'):
    read(tmall)


# MovieLens.

_MOVIES = (
  "1::Toy Story (1995)::Animation|Children's|Comedy\n"
  '2::Mis\xe9rables, Les (1995)::Drama|Musical\n'
)
_RATINGS = '1::2::5::978300760\n1::1::3::978300019\n2::1::4::978300000\n'


@pytest.fixture(params=['folder', 'zip'])
def movielens(data, tmp_path, request):
  data.name = 'movielens_1m'
  data.input = _write_movielens(tmp_path, request.param, _MOVIES, _RATINGS)
  return data


def _write_movielens(tmp_path, kind, movies, ratings) -> str:
  folder = tmp_path / 'unpacked'
  folder.mkdir(exist_ok=True)
  (folder / 'movies.dat').write_bytes(movies.encode('latin-1'))
  (folder / 'ratings.dat').write_bytes(ratings.encode('latin-1'))
  if kind == 'folder':
    return str(folder)
  path = tmp_path / 'ml-1m.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    for file in folder.iterdir():
      archive.write(file, f'ml-1m/{file.name}')
  return str(path)


def test_movielens_joins_genres_in_time_order(movielens):
  log = read(movielens)
  toys, drama = "Animation|Children's|Comedy", 'Drama|Musical'
  assert events(log) == {1: [1, 2], 2: [1]}
  assert events(log, 'category') == {1: [toys, drama], 2: [toys]}
  assert log.report.rows_read == log.report.rows_kept == 3
  movielens.fields = ('genres',)
  assert events(read(movielens), 'genres') == {1: [toys, drama], 2: [toys]}


def test_movielens_flaws_are_reported(data, tmp_path):
  data.name = 'movielens_1m'
  ratings = _RATINGS + '1::3::5::978300761\n1::one::5::978300761\n1::2::5\n'
  data.input = _write_movielens(tmp_path, 'folder', _MOVIES, ratings)
  with pytest.raises(errors.UsageError, match='2 of 6 rows are malformed'):
    read(data)
  data.max_malformed_share = 0.5
  data.fields = ('genres',)
  log = read(data)
  assert events(log, 'genres')[1][-1] == ''
  assert log.report.dropped == {'malformed': 2}
  assert log.report.examples == ['ratings.dat, line 5', 'ratings.dat, line 6']
  assert events(log, 'category')[1][-1] == '(no genres listed)'
  assert '1 ratings of movies without genres' in '\n'.join(log.report.notes)


def test_movielens_refuses_other_inputs(data, write, tmp_path):
  data.name = 'movielens_1m'
  for given, message in [
    (None, 'data.input is not set'),
    (write('ml-1m.zip', 'not a zip'), 'expected MovieLens'),
    (str(tmp_path), 'holds no movies.dat'),
  ]:
    data.input = given
    with pytest.raises(errors.UsageError, match=message):
      read(data)


# csv_log.

_SHOP = (
  'when,who,what,kind,shop,device,shown\n'
  '30,ann,soap,bath,s1,phone,1\n'
  '10,ann,rice,food,s2,,0\n'
  '20,bob,soap,bath,,laptop,1\n'
  '20,ann,milk,food,s1,phone,1\n'
)


@pytest.fixture
def shop(data, write):
  data.name = 'csv_log'
  data.input = write('shop.csv', _SHOP)
  data.columns.user = 'who'
  data.columns.item = 'what'
  data.columns.category = 'kind'
  data.columns.time = 'when'
  return data


def test_csv_log_reads_the_named_columns(shop):
  log = read(shop)
  assert events(log) == {'ann': ['rice', 'milk', 'soap'], 'bob': ['soap']}
  assert set(log.columns) == {'item_id', 'category_id', 'timestamp'}
  shop.sort_by_time = False
  assert events(read(shop))['ann'] == ['soap', 'rice', 'milk']


def test_csv_log_fields_context_and_labels_reach_the_store(shop):
  shop.columns.fields = ('shop',)
  shop.columns.context = ('device',)
  shop.columns.label = 'shown'
  log = read(shop)
  assert events(log, 'shop') == {'ann': ['s2', 's1', 's1'], 'bob': ['']}
  assert events(log, 'device')['ann'] == ['', 'phone', 'phone']
  np.testing.assert_array_equal(log.columns['label'], [0, 1, 1, 1])
  store = datasets.prepare(log_options.of_section(shop))
  assert store.fields == ('item', 'category', 'shop')
  assert store.context_fields == ('device',)
  assert len(store.behaviors) == 3  # The unclicked impression is no behavior.
  assert store.impressions is not None
  assert len(store.impressions) == 4
  assert store.raw_ids('shop').to_list() == ['s1', 's2', '']


def test_csv_log_formats_give_the_same_log(shop, write, tmp_path):
  plain = read(shop)
  bare = _SHOP.split('\n', 1)
  path = tmp_path / 'SHOP.Parquet'
  pl.read_csv(_SHOP.encode()).with_columns(
    pl.from_epoch(pl.col('when'), time_unit='s')
  ).write_parquet(path)
  for given, order in [
    (write('shop.csv.gz', gzip.compress(_SHOP.encode())), None),
    (write('bare.csv', bare[1]), tuple(bare[0].split(','))),
    (str(path), None),
  ]:
    shop.input = given
    shop.columns.order = order
    other = read(shop)
    assert events(other) == events(plain), given
    for name, column in plain.columns.items():
      np.testing.assert_array_equal(other.columns[name], column)


@pytest.mark.parametrize('label', ['2', '-1', 'yes', '', '0.5'])
def test_csv_log_labels_are_0_or_1(shop, write, label):
  shop.columns.label = 'shown'
  row = f'30,ann,soap,bath,s1,phone,{label}\n'
  shop.input = write('bad.csv', _SHOP + row)
  with pytest.raises(errors.UsageError, match='1 of 5 rows .*line 6'):
    read(shop)


@pytest.mark.parametrize(
  ('option', 'value', 'message'),
  [
    ('category', 'aisle', "no column 'aisle'; it has when, who, what"),
    ('category', '', 'data.columns.category is empty'),
    ('category', 'what', "already used as 'item'"),
    ('label', 'clicked', "no column 'clicked'"),
    ('fields', ('shelf',), "no column 'shelf'"),
    ('fields', ('shop', 'shop'), "already used as 'shop'"),
    ('context', ('a b',), "cannot be named 'a b'"),
    ('fields', ('timestamp',), "cannot be named 'timestamp'"),
    ('order', ('who', 'what', 'when', 'kind'), r'\(4\); line 1 has 7'),
  ],
)
def test_csv_log_refuses_wrong_columns(shop, option, value, message):
  shop.columns[option] = value
  with pytest.raises(errors.UsageError, match=message):
    read(shop)


def test_csv_log_parquet_flaws(shop, tmp_path):
  path = pathlib.Path(tmp_path / 'shop.parquet')
  frame = pl.read_csv(_SHOP.encode())
  frame.with_columns(
    who=pl.when(pl.col('who') == 'bob').then(None).otherwise('who')
  ).write_parquet(path)
  shop.input = str(path)
  with pytest.raises(errors.UsageError, match='1 of 4 rows are malformed'):
    read(shop)
  frame.drop('kind').write_parquet(path)
  with pytest.raises(errors.UsageError, match="no column 'kind'"):
    read(shop)
