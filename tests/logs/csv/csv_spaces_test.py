"""Which spaces of a block of CSV mean nothing."""

from __future__ import annotations

import csv
import io

import hypothesis
from hypothesis import strategies as st
import pytest

from dare_jax.logs.csv import csv_spaces


@pytest.mark.parametrize(
  ('block', 'stripped'),
  [
    ('a,b\n', 'a,b\n'),
    ('a b,c\n', 'a b,c\n'),
    ('a, b\n', 'a,b\n'),
    (' a  ,\tb c \t\r\n  d,e ', 'a,b c\r\nd,e'),
    ('a, ,b\n', 'a,,b\n'),
    ('   \n', '\n'),
    ('" a ", " b, c" ,d \n', '" a "," b, c",d\n'),
    ('" a ""x"", y ", b\n', '" a ""x"", y ",b\n'),
    # A field with line breaks, then others.
    ('"a , \n , b", c\nd, e\n', '"a , \n , b",c\nd,e\n'),
    # A stray quote changes no other line.
    ('a", b\nc, " d , e"\n', 'a", b\nc," d , e"\n'),
    ('a, "b\nc, d\n', 'a,"b\nc,d\n'),
    # Nor one of another row, of which a field holds line breaks.
    ('a", b\n"d , \n , e" , f\n', 'a", b\n"d , \n , e",f\n'),
    ('"d , \n , e" , f\na, b"c "\n', '"d , \n , e",f\na,b"c "\n'),
    ('a, "b\n"d , \n, e", f\n', 'a,"b\n"d , \n, e",f\n'),
  ],
)
def test_spaces_around_fields_go_and_others_stay(block, stripped):
  width = 1 + stripped.partition('\n')[0].count(',')
  found = csv_spaces.strip(block.encode(), width=width)
  assert found == stripped.encode()


@pytest.mark.parametrize(
  ('block', 'separator', 'stripped'),
  [
    ('a;\tb , c ; d\n', ';', 'a;b , c;d\n'),
    ('a\t b\t\tc \n', '\t', 'a\tb\t\tc\n'),
    ('a b c\n', ' ', 'a b c\n'),
    ('a : b:: c" :: " d\n', '::', 'a : b::c"::" d\n'),
  ],
)
def test_other_separators(block, separator, stripped):
  found = csv_spaces.strip(block.encode(), separator)
  assert found == stripped.encode()


@pytest.mark.parametrize(
  ('block', 'is_last', 'stripped'),
  [
    ('a, b\nc, "d , \n , e\n', False, 'a,b\nc,"d , \n , e\n'),
    ('a, b\nc, "d , \n , e\n', True, 'a,b\nc,"d , \n,e\n'),
    ('a", b\nc, "d , \n , e\n', False, 'a", b\nc,"d , \n , e\n'),
    ('a, "b\n' + 100 * 'c, d\n', False, 'a,"b\n' + 100 * 'c,d\n'),
  ],
)
def test_a_field_that_the_block_cuts_keeps_its_spaces(block, is_last, stripped):
  found = csv_spaces.strip(block.encode(), is_last=is_last, width=2)
  assert found == stripped.encode()


_FIELDS = st.lists(
  st.lists(st.text('ab ,"\n', max_size=5), min_size=3, max_size=3),
  min_size=1,
  max_size=5,
)


@hypothesis.given(_FIELDS, st.data())
def test_quoted_fields_keep_all_of_theirs(rows, draw):
  def space():
    return draw.draw(st.sampled_from(['', ' ', '\t ']))

  def quoted(field):
    return space() + '"' + field.replace('"', '""') + '"' + space()

  text = ''.join(','.join(map(quoted, row)) + '\n' for row in rows)
  found = csv_spaces.strip(text.encode()).decode()
  assert list(csv.reader(io.StringIO(found, newline=''))) == rows
  # Nor does a stray quote in another row change that.
  stray = b'a", b, c\n'
  for block in (stray + text.encode(), text.encode() + stray):
    alone = csv_spaces.strip(block, width=3)
    assert alone.replace(stray, b'').decode() == found
