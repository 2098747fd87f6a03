"""A log is the same log in one file or many, whatever separates its fields."""

import gzip
import pathlib
import shutil
import tempfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from dare_jax import errors
from dare_jax.configs import base
from dare_jax.logs import options as log_options
from dare_jax.logs.csv import raw_csv
from dare_jax.store import datasets
from tests.logs import builders_test

_NAMES = ['user_id', 'item_id', 'category_id', 'timestamp', 'shop']
_PACKS = {
  '': lambda data: data,
  '.gz': gzip.compress,
  '.zst': lambda data: pa.Codec('zstd').compress(data, asbytes=True),
}


def _rows(num_rows):
  rng = np.random.default_rng(num_rows)
  draw = lambda high: rng.integers(0, high, num_rows).astype(str)
  times = (1_700_000_000 + rng.integers(0, 99, num_rows)).astype(str)
  columns = [draw(5), draw(9), draw(3), times, draw(2)]
  return [list(map(str, row)) for row in zip(*columns, strict=True)]


def _data(given, **columns):
  data = base.get_config().data
  data.name = 'csv_log'
  data.input = str(given)
  data.max_malformed_share = 0.0
  data.columns.update({'fields': ('shop',)} | columns)
  return data


def _read(given, **columns):
  data = _data(given, **columns)
  with tempfile.TemporaryDirectory() as folder:
    data.data_dir = folder
    return builders_test.read(data)


def _assert_same(log, other):
  np.testing.assert_array_equal(log.offsets, other.offsets)
  for name, column in other.columns.items():
    np.testing.assert_array_equal(log.columns[name], column)
  for field, values in other.raw_ids.items():
    assert log.raw_ids[field].to_list() == values.to_list()
  assert log.report.rows_read == other.report.rows_read
  assert log.report.rows_kept == other.report.rows_kept


def _text(rows, separator=',', end='\n'):
  return (end.join(separator.join(row) for row in rows) + end).encode()


def _write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
  num_rows=st.integers(1, 40),
  cuts=st.lists(st.integers(0, 40), max_size=4),
  separator=st.sampled_from([',', '\t', ';', '|', '::', '\x01']),
  pack=st.sampled_from(sorted(_PACKS)),
  end=st.sampled_from(['\n', '\r\n']),
  header=st.booleans(),
  block_bytes=st.sampled_from([64, 64 << 20]),
  order=st.permutations(range(5)),
)
def test_a_log_in_parts_is_the_log(
  num_rows, cuts, separator, pack, end, header, block_bytes, order
):
  rows = _rows(num_rows)
  bounds = [0, *sorted(min(cut, num_rows) for cut in cuts), num_rows]
  with (
    tempfile.TemporaryDirectory() as folder,
    pytest.MonkeyPatch.context() as m,
  ):
    folder = pathlib.Path(folder)
    _write(folder / 'log.csv', _text([_NAMES, *rows]))
    whole = _read(folder / 'log.csv')
    m.setattr(raw_csv, '_BLOCK_BYTES', block_bytes)
    names = _NAMES
    for part, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
      lines = [_NAMES, *rows[start:stop]] if header else rows[start:stop]
      if header and part % 2:
        lines = [[line[column] for column in order] for line in lines]
      content = _PACKS[pack](_text(lines, separator, end) if lines else b'')
      _write(folder / 'logs' / f'part-{part}.csv{pack}', content)
    _assert_same(
      _read(folder / 'logs', order=None if header else tuple(names)), whole
    )
    _assert_same(
      _read(
        folder / 'logs' / 'part*',
        order=None if header else tuple(names),
        separator=separator,
      ),
      whole,
    )


def test_parts_in_parquet_are_the_log(tmp_path):
  rows = _rows(100)
  _write(tmp_path / 'log.csv', _text([_NAMES, *rows]))
  frame = pl.DataFrame(rows, schema=_NAMES, orient='row')
  frame = frame.with_columns(pl.col('timestamp').cast(pl.Int64))
  (tmp_path / 'logs' / 'below').mkdir(parents=True)
  for part, number in enumerate([0, 7, 60, 100, 100]):
    stop = [0, 7, 60, 100, 100, 100][part + 1]
    # Columns in another order, of another type, and ones that nobody asked for.
    piece = frame[number:stop].select(frame.columns[:: -1 if part % 2 else 1])
    if part:
      piece = piece.with_columns(
        pl.col('user_id').cast(pl.Int64), part=pl.lit(part)
      )
    piece.write_parquet(tmp_path / 'logs' / f'{part}.parquet')
  (tmp_path / 'logs' / '_SUCCESS').touch()
  whole = _read(tmp_path / 'log.csv')
  _assert_same(_read(tmp_path / 'logs'), whole)
  _assert_same(_read(tmp_path / 'logs' / '*.parquet'), whole)


@pytest.mark.parametrize('form', ['csv', 'parquet'])
@pytest.mark.parametrize(
  'column', ['shop', 'category_id', 'user_id', 'timestamp']
)
def test_folders_of_values_are_a_column(tmp_path, form, column):
  rows = sorted(_rows(60), key=lambda row: row[_NAMES.index(column)])
  _write(tmp_path / 'log.csv', _text([_NAMES, *rows]))
  frame = pl.DataFrame(rows, schema=_NAMES, orient='row')
  for (value,), piece in frame.group_by(column, maintain_order=True):
    folder = tmp_path / 'logs' / f'{column}={value}'
    folder.mkdir(parents=True)
    piece = piece.drop(column)
    if form == 'csv':
      piece.write_csv(folder / 'part-0.csv')
    else:
      piece.write_parquet(folder / 'part-0')
  whole = _read(tmp_path / 'log.csv')
  _assert_same(_read(tmp_path / 'logs'), whole)
  _assert_same(_read(tmp_path / 'logs' / '*'), whole)


def test_a_folder_without_a_value(tmp_path):
  head = _text([_NAMES[:4]])
  _write(tmp_path / 'logs' / 'shop=a%2Fb' / 'p', head + b'1,2,3,4\n')
  none = tmp_path / 'logs' / 'shop=__HIVE_DEFAULT_PARTITION__'
  _write(none / 'p', head + b'1,5,3,4\n')
  log = _read(tmp_path / 'logs')
  assert builders_test.events(log, 'shop') == {'1': ['', 'a/b']}
  # As an item it is needed.
  data = _data(tmp_path / 'logs', item='shop', fields=())
  with pytest.raises(errors.UsageError, match=r'1 of 2 rows.*empty shop'):
    builders_test.read(data)


def test_a_missing_column_is_told_with_those_of_folders(tmp_path):
  _write(tmp_path / 'day=1' / 'p', _text([_NAMES[:4], list('1234')]))
  message = r"p: no column 'shop'; it has .*, timestamp, day \(of a folder\)"
  with pytest.raises(errors.UsageError, match=message):
    _read(tmp_path)
  (tmp_path / 'day=1' / 'p').unlink()
  pl.DataFrame({'user_id': [1]}).write_parquet(tmp_path / 'day=1' / 'q')
  message = r"q: no column 'item_id'; it has user_id, day \(of a folder\)"
  with pytest.raises(errors.UsageError, match=message):
    _read(tmp_path)


def test_a_column_of_a_file_comes_before_that_of_its_folder(tmp_path):
  _write(tmp_path / 'shop=x' / 'p.csv', _text([_NAMES, list('12345')]))
  log = _read(tmp_path)
  assert log.raw_ids['shop'].to_list() == ['5']


def test_faults_name_their_file(tmp_path):
  head = _text([_NAMES])
  good = b'1,2,3,4,5\n'
  _write(tmp_path / 'day=1' / 'a.csv', head + good * 3)
  _write(tmp_path / 'day=1' / 'b.csv', head + good + b'1,2,3,q,5\n' + b'1,2')
  _write(tmp_path / 'day=2' / 'a.csv', head + good + b'1,2\n' + good[:-1])
  data = _data(tmp_path)
  with pytest.raises(errors.UsageError) as caught:
    builders_test.read(data)
  line = str(caught.value)
  assert f'{tmp_path}: 2 of 9 rows are malformed' in line
  assert "day=1/b.csv, line 3: '1,2,3,q,5'" in line
  assert "day=2/a.csv, line 3: '1,2' (2 fields, the header has 5)" in line
  data.max_malformed_share = 1.0
  report = builders_test.read(data).report
  assert report.dropped == {'malformed': 2, 'truncated last line': 1}
  assert report.notes == [
    'day=1/b.csv: line 4, the last one, is truncated and was left out',
    'day=2/a.csv does not end in a line break; its last line, 4, may be cut',
  ]


def test_parquet_faults_name_their_file(tmp_path):
  frame = pl.DataFrame(
    {'user_id': [1, None], 'item_id': 1, 'category_id': 1, 'timestamp': 1}
  )
  frame[:1].write_parquet(tmp_path / 'a.parquet')
  frame.write_parquet(tmp_path / 'b.parquet')
  with pytest.raises(
    errors.UsageError, match=r'first: b.parquet, row 2: .*empty'
  ):
    _read(tmp_path, fields=())


@pytest.mark.parametrize(
  ('second', 'message'),
  [
    (b'user_id,item_id,timestamp,shop\n1,2,3,4\n', "b.csv: no column 'cat"),
    (b'1,2,3,4,5\n', "b.csv: no column 'user_id'; it has 1, 2, 3, 4, 5"),
    (_text([_NAMES], '\t'), 'b.csv: no column .*0 commas and 4 tabs'),
    (b'\xff\xfe', 'b.csv: line 1 is not UTF-8'),
    (_text([[*_NAMES, 'shop']]), "b.csv: the header names column 'shop' twice"),
  ],
)
def test_a_part_of_another_log_is_refused_before_any_is_read(
  tmp_path, monkeypatch, second, message
):
  _write(tmp_path / 'a.csv', _text([_NAMES, list('12345')]))
  _write(tmp_path / 'b.csv', second)
  monkeypatch.setattr(raw_csv, 'read', None)
  with pytest.raises(errors.UsageError, match=message):
    _read(tmp_path)


@pytest.mark.parametrize(
  ('column', 'one', 'other'),
  [
    ('timestamp', pl.Series([1]).cast(pl.Datetime('us')), [1]),
    ('timestamp', [1.0], pl.Series([1]).cast(pl.Date)),
    ('shop', [True], [1]),
    ('category_id', ['2024-05-01'], pl.Series([1]).cast(pl.Date)),
  ],
)
def test_parts_of_other_types_are_refused(tmp_path, column, one, other):
  frame = pl.DataFrame({name: [1] for name in _NAMES})
  for name, values in [('a', one), ('b', other)]:
    frame.with_columns(pl.Series(column, values)).write_parquet(
      tmp_path / f'{name}.parquet'
    )
  with pytest.raises(errors.UsageError, match=f"b.parquet: column '{column}'"):
    _read(tmp_path)


def test_parts_that_pandas_made_real_are_the_log(tmp_path):
  frame = pl.DataFrame({name: [7, 8] for name in _NAMES})
  frame.write_parquet(tmp_path / 'a.parquet')
  real = frame.cast(pl.Float64).with_columns(shop=pl.Series([7.0, None]))
  real.write_parquet(tmp_path / 'b.parquet')
  frame.cast(pl.String).write_parquet(tmp_path / 'c.parquet')
  log = _read(tmp_path)
  assert builders_test.events(log) == {'7': ['7'] * 3, '8': ['8'] * 3}
  assert log.raw_ids['shop'].to_list() == ['7', '8', '']


def test_a_column_without_any_value_is_of_every_type(tmp_path):
  frame = pl.DataFrame({name: [1] for name in _NAMES})
  for name, values in [('a', [None]), ('b', ['x']), ('c', [None]), ('d', [1])]:
    frame.with_columns(pl.Series('shop', values)).write_parquet(
      tmp_path / f'{name}.parquet'
    )
  log = _read(tmp_path)
  assert log.raw_ids['shop'].to_list() == ['', 'x', '1']
  frame.with_columns(shop=True).write_parquet(tmp_path / 'e.parquet')
  with pytest.raises(errors.UsageError, match='Boolean, but of type String'):
    _read(tmp_path)


def test_notes_of_many_files_are_few(tmp_path):
  for number in range(30):
    text = _text([_NAMES, list('12345')])
    _write(tmp_path / f'{number}.csv', text[:-1])
  notes = _read(tmp_path).report.notes
  assert notes[9].startswith('9.csv does not end in a line break')
  assert notes[10] == '20 more such notes, of other files'


def test_recbole_files_are_read_as_they_are(tmp_path):
  head = 'user_id:token\titem_id:token\tcategory_id:token\ttimestamp:float'
  text = f'{head}\tclass:token_seq\n1\t2\t3\t10\tx y\n1\t3\t4\t9.0\tz\n'
  _write(tmp_path / 'ml.inter', text.encode())
  _write(tmp_path / 'ml.item', b'item_id:token\n')
  log = _read(tmp_path / 'ml.inter', fields=())
  assert builders_test.events(log) == {'1': ['3', '2']}
  with pytest.raises(
    errors.UsageError, match="'class:token_seq' holds several"
  ):
    _read(tmp_path / 'ml.inter', fields=('class',))
  with pytest.raises(
    errors.UsageError, match=r'2 kinds, ml.inter \(.inter\), ml.item'
  ):
    _read(tmp_path, fields=())


def test_ratings_of_movielens(tmp_path):
  _write(tmp_path / 'ratings.dat', b'1::1193::5::978300760\n1::661::3::9783\n')
  order = ('user_id', 'item_id', 'category_id', 'timestamp')
  log = _read(tmp_path / 'ratings.dat', fields=(), order=order)
  assert builders_test.events(log) == {'1': ['661', '1193']}
  assert builders_test.events(log, 'category') == {'1': ['3', '5']}


def test_what_separates_is_told_where_names_are_wrong(tmp_path):
  _write(tmp_path / 'log.txt', b'a;b;c\n1;2;3\n')
  message = "no column 'user_id'; it has a, b, c. Fields are separated by semi"
  with pytest.raises(errors.UsageError, match=message):
    _read(tmp_path / 'log.txt')
  message = (
    "it has a;b;c. Fields must be separated by '/'; line 1 has 0 '/' and 2"
  )
  with pytest.raises(errors.UsageError, match=message):
    _read(tmp_path / 'log.txt', separator='/')
  message = 'data.columns.separator=.comma'
  with pytest.raises(errors.UsageError, match=message):
    _read(tmp_path / 'log.txt', separator='comma')


def test_values_that_are_several_are_noted(tmp_path):
  values = ['a|b', 'a', 'b|c', 'a|c', 'a|b|c', 'x, y']
  rows = [['1', '2', value, '3', '4'] for value in values]
  rows[-1][2] = '"x, y"'
  _write(tmp_path / 'log.csv', _text([_NAMES, *rows]))
  (note,) = [n for n in _read(tmp_path / 'log.csv').report.notes if '|' in n]
  assert note.startswith(
    "category_id: 4 of 6 values look like several joined by '|', such as 'a|b'"
  )
  assert 'made of 3;' in note
  for number, row in enumerate(rows):
    row[2] = f'{number}|{number}'
  _write(tmp_path / 'log.csv', _text([_NAMES, *rows]))
  notes = _read(tmp_path / 'log.csv').report.notes
  assert not [note for note in notes if 'joined' in note]


def test_a_store_of_parts(tmp_path):
  data = _data(tmp_path / 'logs')
  data.data_dir = str(tmp_path / 'prepared')
  rows = _rows(50)
  _write(tmp_path / 'log.csv', _text([_NAMES, *rows]))
  for part in range(11):
    piece = rows[part * 5 : part * 5 + 5]
    _write(tmp_path / 'logs' / f'{part}', _text([_NAMES, *piece], '\t'))
  store = datasets.prepare(log_options.of_section(data))
  assert len(store.manifest['provenance']['origin']['files']) == 11
  data.input = str(tmp_path / 'log.csv')
  shutil.rmtree(data.data_dir)
  assert (
    datasets.prepare(log_options.of_section(data)).fingerprint
    == store.fingerprint
  )
