"""Separators as they are given and as they are found; names with types."""

import pathlib

import pytest

from dare_jax import errors
from dare_jax.logs.csv import csv_dialect

_PATH = pathlib.Path('log.csv')


@pytest.mark.parametrize(
  ('given', 'expected'),
  [
    (';', ';'),
    ('::', '::'),
    ('|', '|'),
    ('\t', '\t'),
    ('tab', '\t'),
    ('TAB', '\t'),
    (r'\t', '\t'),
    (r'\x01', '\x01'),
    (r'\u0001', '\x01'),
    (' ', ' '),
    ('§', '§'),
  ],
)
def test_what_an_option_means(given, expected):
  assert csv_dialect.separator(given) == expected


@pytest.mark.parametrize('given', ['', 'comma', '"', '\n', 'a', '1', '::\n'])
def test_what_an_option_cannot_be(given):
  with pytest.raises(errors.UsageError, match=r'data\.columns\.separator='):
    csv_dialect.separator(given)


@pytest.mark.parametrize('separator', [',', '\t', ';', '|', '::', '\x01'])
@pytest.mark.parametrize('end', ['\n', '\r\n', ''])
def test_a_plain_separator_is_found(separator, end):
  lines = [['user', '"item"', 'time'], ['a b', 'c:d', '1'], ['a', '', '2']]
  text = (end or '\n').join(separator.join(line) for line in lines) + end
  head = text.encode()
  quoted = 'item' if len(separator) == 1 else '"item"'
  assert csv_dialect.find(_PATH, head, ['time', quoted], None) == separator
  assert csv_dialect.find(_PATH, head, [], 3) == separator


@pytest.mark.parametrize(
  ('text', 'needed', 'num_columns', 'expected'),
  [
    # Commas, where they do.
    ('a;b,c\n1;2,3\n', ['c'], None, ','),
    ('1;2,3\n4;5,6\n', [], 2, ','),
    # A field may hold what separates others elsewhere.
    ('user\titem\tgenres\n1\t2\tx|y\n', ['user', 'item'], None, '\t'),
    ('1;2;x|y\n3;4;u|v\n', [], 3, ';'),
    # One line in ten that is not well formed.
    ('1|2|3\n' * 4 + 'x\n' + '1|2|3\n' * 4, [], 3, '|'),
    # None gives the needed columns: the one that gives most.
    ('user;item\n1;2\n', ['who'], None, ';'),
    ('1::2::3\n', [], 4, '::'),
    ('user\n1\n', ['who'], None, ','),
  ],
)
def test_what_is_found_where_it_is_less_plain(
  text, needed, num_columns, expected
):
  found = csv_dialect.find(_PATH, text.encode(), needed, num_columns)
  assert found == expected


def test_two_that_would_do_are_refused():
  with pytest.raises(errors.UsageError, match=r'tabs or semicolons; say .*SEP'):
    csv_dialect.find(_PATH, b'1\t2;3\n4\t5;6\n', [], 2)


def test_types_of_names_are_taken_off():
  fields = ['user_id:token', 'price:float', 'class:token_seq', 'v:float_seq']
  assert csv_dialect.names(fields) == ['user_id', 'price', 'class', 'v']
  assert csv_dialect.names(['a:token', 'b']) == ['a:token', 'b']
  csv_dialect.require_single_values(_PATH, fields, ['user_id', 'price'])
  for name in ('class', 'v'):
    with pytest.raises(errors.UsageError, match=f"'{name}:.*several values"):
      csv_dialect.require_single_values(_PATH, fields, [name])


def test_a_hint_says_what_separates():
  hint = csv_dialect.hint(['a;b;c'], ',')
  assert 'separated by commas; line 1 has 0 commas and 2 semicolons' in hint
  assert csv_dialect.hint(['a', 'b'], ',') == ''
  assert 'Fields are separated by tabs' in csv_dialect.hint(['a', 'b'], '\t')


@pytest.mark.parametrize('line', ['user item time', 'user^item^time'])
def test_a_hint_for_one_field_names_the_option(line):
  hint = csv_dialect.hint([line], ',')
  assert 'Line 1 has no commas' in hint
  assert '--config.data.columns.separator=SEPARATOR' in hint


def test_an_empty_first_line_is_told():
  assert csv_dialect.hint([], ',') == ' Line 1 is empty; take it out.'
