"""What the CSV reader takes for a fault, and what it says about it."""

from __future__ import annotations

import pathlib

import polars as pl
import pytest

from dare_jax import errors
from dare_jax.logs import raw_log
from dare_jax.logs.csv import raw_csv

_COLUMNS = (
  raw_log.Column('a'),
  raw_log.Column('b', 'str'),
  raw_log.Column('c', 'real_int'),
)
_QUOTES = (
  'a field that opens with a quote must end with one, and hold it twice for'
  ' once'
)


def _read(
  path, columns=_COLUMNS, header=False, share=1.0, select=None, separator=','
):
  report = raw_log.RowReport()
  file = raw_csv.CsvFile(pathlib.Path(path), columns, header, separator)
  blocks = raw_csv.read(file, report, select)
  blocks = list(raw_log.checked(blocks, path, report, share))
  return pl.concat(blocks).rows(), report


@pytest.mark.parametrize(
  ('bad', 'reason'),
  [
    ('1,x', '2 fields, expected 3'),
    ('1,x,2,3', '4 fields, expected 3'),
    ('1,x,2,,3', '5 fields, expected 3'),
    ('1,x,2,,,,"3"', '7 fields, expected 3'),
    ('one,x,2', "a: expected an integer of 0 or more, got 'one'"),
    ('-1,x,2', "a: expected an integer of 0 or more, got '-1'"),
    (f'{2**63},x,2', f"a: expected an integer of 0 or more, got '{2**63}'"),
    (',x,2', 'empty a'),
    ('1,,2', 'empty b'),
    ('1,"",2', 'empty b'),
    ('', 'an empty line'),
    ('1,x,2.5', "c: expected an integer, got '2.5'"),
    ('1,x,2024-01-01', "c: expected an integer, got '2024-01-01'"),
    ('1,"x,2', _QUOTES),
    ('1,"x"y,2', _QUOTES),
  ],
)
def test_a_malformed_row_is_left_out_and_reported(write, bad, reason):
  path = write('log.csv', f'1,x,2\n{bad}\n3,y,-4\n')
  rows, report = _read(path)
  assert rows == [(1, 'x', 2), (3, 'y', -4)]
  assert report.rows_read == 3
  assert report.malformed == 1
  assert report.dropped == {'malformed': 1}
  assert report.examples == [f'line 2: {bad!r} ({reason})']


def test_a_stray_quote_changes_no_other_line(write):
  others = ['1,"x, ""y""",2\n', '3,5" z,4\n', '5,"",6\n']
  expected = [(1, 'x, "y"', 2), (3, '5" z', 4)] * 3
  path = write('log.csv', ''.join(others * 3))
  assert _read(path)[0] == expected
  for bad in ('7,"x,8\n', '7,x,"8\n', '7,"x"y,8\n', '"7",x",8,"\n'):
    path = write('log.csv', ''.join([*others * 2, bad, *others]))
    rows, report = _read(path)
    assert rows == expected, bad
    assert [text[:6] for text in report.examples] == [
      'line 3',
      'line 6',
      'line 7',
      'line 1',
    ]
    assert report.examples[2] == f'line 7: {bad[:-1]!r} ({_QUOTES})'


@pytest.mark.parametrize('size', [16, 64 << 20])
@pytest.mark.parametrize('more', ['3', '3,4', ',', '3,,,,,', ',3', ',,,3,'])
def test_a_block_may_begin_with_too_many_fields(write, monkeypatch, size, more):
  monkeypatch.setattr(raw_csv, '_BLOCK_BYTES', size)
  row, bad = '10000,x,20000\n', f'10000,x,20000,{more}\n'
  path = write('log.csv', 'a,b,c\n' + 2 * (bad + row))
  rows, report = _read(path, header=True)
  is_fault = more != ','  # Empty fields beyond the last are none.
  assert rows == [(10000, 'x', 20000)] * (2 if is_fault else 4)
  assert report.malformed == 2 * is_fault


@pytest.mark.parametrize('size', [16, 64 << 20])
def test_a_field_in_quotes_may_hold_line_breaks(write, monkeypatch, size):
  monkeypatch.setattr(raw_csv, '_BLOCK_BYTES', size)
  text = '1,x,2\n3,"y\n\nof ""two"",\nlines",4\n5,z,6\nq,z,6\n'
  rows, report = _read(write('log.csv', text))
  assert rows == [(1, 'x', 2), (3, 'y\n\nof "two",\nlines', 4), (5, 'z', 6)]
  assert report.rows_read == 4
  assert [text[:7] for text in report.examples] == ['line 7:']
  text = 'a,b,c\n' + '1,x,2\n' * 3 + '3,"y\nz",q\n1,x,2\n'
  rows, report = _read(write('log.csv', text), header=True)
  assert rows == [(1, 'x', 2)] * 4
  assert report.examples == [
    "line 5: '3,\"y\\nz\",q' (c: expected an integer, got 'q')"
  ]


@pytest.mark.parametrize('size', [16, 64 << 20])
def test_spaces_in_quotes_stay_wherever_blocks_end(write, monkeypatch, size):
  monkeypatch.setattr(raw_csv, '_BLOCK_BYTES', size)
  text = ' x \n , y \n z '
  path = write('log.csv', f'1, a ,2\n3, "{text}" ,4\n' * 5)
  assert _read(path)[0] == [(1, 'a', 2), (3, text, 4)] * 5


def test_whole_numbers_with_a_fraction_are_integers(write):
  rows, report = _read(write('log.csv', '1.0,x,1700000000.000\n2,2.0,-3.\n'))
  assert rows == [(1, 'x', 1_700_000_000), (2, '2.0', -3)]
  assert not report.dropped


def test_line_numbers_count_the_header_and_earlier_blocks(write, monkeypatch):
  monkeypatch.setattr(raw_csv, '_BLOCK_BYTES', 16)
  path = write('log.csv', 'a,b,c\n' + '1,x,2\n' * 10 + 'bad,x,2\n1,x,2\n')
  rows, report = _read(path, header=True)
  assert len(rows) == 11
  assert [text[:18] for text in report.examples] == ["line 12: 'bad,x,2'"]


@pytest.mark.parametrize('last', ['7,x', '7', 'q', '7,,'])
def test_a_truncated_last_line_is_no_error(write, last):
  path = write('log.csv', f'1,x,2\n{last}')
  rows, report = _read(path, share=0.0)
  assert rows == [(1, 'x', 2)]
  assert report.malformed == 0
  assert report.dropped == {'truncated last line': 1}
  assert 'line 2' in report.notes[0]


def test_a_sound_last_line_without_a_line_break_is_kept(write):
  rows, report = _read(write('log.csv', '1,x,2\n3,y,4'))
  assert rows == [(1, 'x', 2), (3, 'y', 4)]
  assert not report.dropped
  assert report.notes == [
    'log.csv does not end in a line break; its last line, 2, may be cut'
  ]


def test_unselected_fields_may_be_empty_but_not_missing(write):
  select = {'a': 'user'}
  path = write('log.csv', '1,,\n2,x,\n3,x\n4\n5,x,1,1\n6,"p,q",\n')
  rows, report = _read(path, select=select)
  assert rows == [(1,), (2,), (6,)]
  assert report.dropped == {'malformed': 3}


def test_an_optional_field_may_be_empty(write):
  columns = (raw_log.Column('a'), raw_log.Column('b', 'str', required=False))
  rows, report = _read(write('log.csv', '1,\n2,x\n3\n'), columns)
  assert rows == [(1, ''), (2, 'x')]
  assert report.malformed == 1


def test_a_pattern_must_match_the_whole_text(write):
  columns = (raw_log.Column('a', pattern='[01]'),)
  rows, report = _read(write('log.csv', '1\n0\n10\n2\n'), columns)
  assert rows == [(1,), (0,)]
  assert report.malformed == 2


def test_bytes_that_are_not_utf_8_are_malformed(write):
  text = '1,"é,",2\n'.encode()
  rows, report = _read(write('log.csv', text + b'3,\xe9,4\n3,\xe8,4\n' + text))
  assert rows == [(1, 'é,', 2)] * 2
  assert report.malformed == 2
  assert report.examples[0] == (
    "line 2: '3,\ufffd,4' (not UTF-8 text; convert the file to UTF-8)"
  )


@pytest.mark.parametrize('size', [16, 64 << 20])
def test_line_ends_of_old_macs_are_refused(write, monkeypatch, size):
  monkeypatch.setattr(raw_csv, '_BLOCK_BYTES', size)
  path = write('log.csv', 'a,b,c\r1,x,2\r3,y,4\r')
  for read in (_read, lambda path: raw_csv.header(pathlib.Path(path))):
    with pytest.raises(errors.UsageError, match='found carriage returns'):
      read(path)


def test_a_header_that_is_a_name_short(write):
  path = write('log.csv', 'a,b,c\n1,x,2,7\n3,y,4,8\n')
  with pytest.raises(
    errors.UsageError,
    match=r"header has 3 columns, rows have 4 \(line 2: '1,x,2,7'\)",
  ):
    _read(path, header=True)
  path = write('log.csv', 'a,b,c\n1,x,2,7\n3,y,4\n')
  _, report = _read(path, header=True)
  assert report.examples == ["line 2: '1,x,2,7' (4 fields, the header has 3)"]


def test_an_empty_field_too_many_is_let_pass(write):
  path = write('log.csv', 'a,b,c\n1,x,2,\n3,"y\n",4,\n')
  assert _read(path, header=True)[0] == [(1, 'x', 2), (3, 'y\n', 4)]


@pytest.mark.parametrize('separator', [',', '::'])
def test_empty_fields_too_many_are_let_pass_and_others_counted(
  write, separator
):
  text = '12,u,13\n1,x,2,,\n3,y,4,,,5\n6,z,7,,,,,,\r\n8,v,9,,w,\n10,,11\n'
  path = write('log.dat', text.replace(',', separator))
  rows, report = _read(path, separator=separator)
  assert rows == [(12, 'u', 13), (1, 'x', 2), (6, 'z', 7)]
  assert [text[:6] for text in report.examples] == [
    *('line 3', 'line 5', 'line 6')
  ]


def test_blank_lines_at_the_end_are_no_rows(write, monkeypatch):
  for size in (16, 64 << 20):
    monkeypatch.setattr(raw_csv, '_BLOCK_BYTES', size)
    for end in ('\n\n', '\n \t\n\n\n' + 30 * '\n', '\r\n\r\n', '\n  '):
      path = write('log.csv', 'a,b,c\n' + 3 * '1,x,2\n' + f'3,y,4{end}')
      rows, report = _read(path, header=True, share=0.0)
      assert rows == [(1, 'x', 2)] * 3 + [(3, 'y', 4)]
      assert report.rows_read == 4 and not report.dropped
  path = write('log.csv', '1,x,2\n\n3,y,4\n')  # One between rows may be a loss.
  assert _read(path)[1].dropped == {'malformed': 1}
  path = write('log.tsv', 'a\tb\tc\n1\tx\t\n\n')
  optional = (*_COLUMNS[:2], raw_log.Column('c', 'str', required=False))
  rows, _ = _read(path, optional, header=True, separator='\t')
  assert rows == [(1, 'x', '')]


def test_windows_line_ends(write):
  path = write('log.csv', b'1,"x",2\r\n3,"y",4\r\n')
  assert _read(path)[0] == [(1, 'x', 2), (3, 'y', 4)]
  path = write('log.dat', b'1::x::2\r\n3::y::4\r\n\r\n5::z::6')
  rows, report = _read(path, separator='::')
  assert rows == [(1, 'x', 2), (3, 'y', 4), (5, 'z', 6)]
  assert report.examples == ["line 3: '' (an empty line)"]


@pytest.mark.parametrize('separator', ['\t', ';', '|', ' ', '\x01'])
def test_a_separator_of_one_byte_keeps_the_rules_of_quotes(write, separator):
  text = 'a,b,c\n1,"x, ""y""",2\n3,5" z,4\n5,"p\nq",6\n7,"x,8\n7,x\n9,y,q\n'
  text = text.replace('5" z', '5"z').replace(', ', ',')
  plain, expected = _read(write('log.csv', text), header=True)
  path = write('log.txt', text.replace(',', separator))
  rows, report = _read(path, header=True, separator=separator)
  assert (
    rows
    == [(a, b.replace(',', separator), c) for a, b, c in plain]
    == [(1, f'x{separator}"y"', 2), (3, '5"z', 4), (5, 'p\nq', 6)]
  )
  assert report.dropped == expected.dropped == {'malformed': 3}
  reasons = [text.rpartition('(')[2] for text in report.examples]
  assert reasons == [text.rpartition('(')[2] for text in expected.examples]


def test_a_separator_of_two_bytes_takes_quotes_as_they_are(write):
  good = '1::"x::2\n3::y: "z"::4\n'
  bad = [b'5::x::q', b'5::x', b'5::x::6::7', b'5::\xe9::6']
  text = good.encode() + b'\n'.join(bad) + b'\n8:::::9\n' + good.encode()
  rows, report = _read(write('log.dat', text), separator='::')
  assert rows == [(1, '"x', 2), (3, 'y: "z"', 4)] * 2
  assert report.examples == [
    "line 3: '5::x::q' (c: expected an integer, got 'q')",
    "line 4: '5::x' (2 fields, expected 3)",
    "line 5: '5::x::6::7' (4 fields, expected 3)",
    "line 6: '5::\ufffd::6' (not UTF-8 text; convert the file to UTF-8)",
    "line 7: '8:::::9' (empty b)",
  ]


def test_a_column_that_is_given_stands_in_every_row(write):
  shop, day = raw_log.Column('shop', 'str'), raw_log.Column('day', 'real_int')
  path = pathlib.Path(write('log.csv', '1,x,2\n3,y,\n4,z\n'))
  columns = (*_COLUMNS[:2], raw_log.Column('c', 'str', required=False))
  select = {'a': 'user', 'shop': 'shop', 'day': 'time'}
  for value, expected in [('7', [(1, 's', 7), (3, 's', 7)]), ('7x', [])]:
    report = raw_log.RowReport()
    file = raw_csv.CsvFile(
      path, columns, header=False, constants={shop: 's', day: value}
    )
    rows = pl.concat(raw_csv.read(file, report, select)).rows()
    assert rows == expected
  assert report.examples[:2] == [
    "line 1: '1,x,2' (day: expected an integer, got '7x')",
    "line 2: '3,y,' (day: expected an integer, got '7x')",
  ]


@pytest.mark.parametrize(
  ('text', 'header', 'message'),
  [
    ('1,2\n', False, r'a,b,c \(3\); line 1 has 2'),
    ('a,b,d\n1,x,2\n', True, 'header with the columns a,b,c'),
    ('a,b,c\n', True, 'no rows'),
    (b'\xff\xfe\x00,1,2\n', False, 'not UTF-8'),
    (
      'a;b;c\n1;x;2\n',
      True,
      'separated by commas; line 1 has 0 commas and',
    ),
    ('1\tx\t2\n', False, '0 commas and 2 tabs'),
  ],
)
def test_a_file_of_another_kind_is_refused(write, text, header, message):
  with pytest.raises(errors.UsageError, match=message):
    _read(write('log.csv', text), header=header)


def test_too_many_malformed_rows_are_refused(write):
  path = write('log.csv', '1,x,2\n' * 99 + 'x,x,2\n')
  assert len(_read(path, share=0.01)[0]) == 99
  with pytest.raises(errors.UsageError, match="1 of 100 .*line 100: 'x,x,2'"):
    _read(path, share=0.009)


def test_header_reads_quoted_names_and_refuses_doubles(write):
  path = pathlib.Path(write('log.csv', '\ufeff"a,b", c\r\n1,2\r\n'))
  assert raw_csv.header(path) == ['a,b', 'c']
  with pytest.raises(errors.UsageError, match="'a' twice"):
    raw_csv.header(pathlib.Path(write('twice.csv', 'a,b,a\n')))
