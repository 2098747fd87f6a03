"""What the command writes has all rows and columns of its input."""

import csv
import gzip
import io
import re

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from tests.prediction import cases


def test_columns_pass_through_as_they_are(tmp_path, ask, expected):
  frame = expected[0].head(9).with_row_index('a "b", c')
  odd = ['x', None, '', ' y ', '"', 'a,b', '007', 'l1\nl2', '\N{SNOWMAN}']
  frame = frame.with_columns(pl.Series('odd', odd))
  text = frame.write_csv().replace('\n', '\r\n')
  (tmp_path / 'in.csv').write_bytes(text.encode())
  ask(tmp_path / 'in.csv', tmp_path / 'out.csv', block=4)
  found = (tmp_path / 'out.csv').read_bytes().decode()
  rows = [*csv.reader(io.StringIO(found, newline=''))]
  assert rows[0][-2:] == ['logit', 'probability']
  theirs = [*csv.reader(io.StringIO(text, newline=''))]
  assert [row[:-2] for row in rows] == theirs
  # Also what stands for the same, as quotes that are not needed.
  bare = re.sub(r',-?[\d.e-]+,[\d.e-]+\r\n', '\r\n', found)
  assert bare.partition('\r\n')[2] == text.partition('\r\n')[2]


def test_types_pass_through_as_they_are(tmp_path, ask, expected):
  frame = (
    expected[0]
    .head(6)
    .with_columns(
      pl.Series('list', [[1], None, [], [2, 3], [4], [5]]),
      pl.Series('when', range(6)).cast(pl.Datetime('us', 'Europe/Paris')),
      pl.Series('kind', list('abcabc')).cast(pl.Categorical),
      pl.Series('price', [1, None, 3, 4, 5, 6]).cast(pl.Decimal(9, 2)),
      pl.Series('raw', [b'\x00', None, b'', b'a', b'b', b'c']),
    )
  )
  frame.write_parquet(tmp_path / 'in.parquet')
  ask(tmp_path / 'in.parquet', tmp_path / 'out.parquet', block=4)
  out = pl.read_parquet(tmp_path / 'out.parquet')
  assert out.columns == [*frame.columns, 'logit', 'probability']
  assert out.drop('logit', 'probability').equals(frame)
  assert out.schema['logit'] == pl.Float32
  assert [*out.schema.items()][:-2] == [*frame.schema.items()]
  with pytest.raises(errors.UsageError, match="'list' is of type"):
    ask(tmp_path / 'in.parquet', tmp_path / 'out.csv')


@pytest.mark.parametrize('kind', ['csv', 'parquet'])
@pytest.mark.parametrize('output', ['csv', 'csv.gz', 'parquet'])
def test_no_rows(tmp_path, ask, expected, kind, output):
  empty = expected[0].clear()
  source, path = tmp_path / f'in.{kind}', tmp_path / f'out.{output}'
  getattr(empty, f'write_{kind}')(source)
  assert ask(source, path).rows == 0
  assert cases.read(path).columns == [*empty.columns, 'logit', 'probability']
  assert not len(cases.read(path))


def test_separators_and_compression(tmp_path, ask, expected):
  frame, logits = expected[0].head(20), expected[1][:20]
  text = frame.write_csv(separator='\t').encode()
  (tmp_path / 'in.tsv').write_bytes(gzip.compress(text))
  ask(tmp_path / 'in.tsv', tmp_path / 'out.csv.gz', block=8)
  out = gzip.decompress((tmp_path / 'out.csv.gz').read_bytes())
  found = pl.read_csv(out, separator='\t')
  assert found.drop('logit', 'probability').equals(frame)
  np.testing.assert_allclose(
    found['logit'].to_numpy(), logits, rtol=1e-6, atol=1e-6
  )


def test_columns_of_other_names(tmp_path, ask, expected):
  frame, logits = expected[0].head(10), expected[1][:10]
  names = {'user_id': 'who', 'item_id': 'item', 'timestamp': 'when'}
  frame.rename(names).write_csv(tmp_path / 'in.csv')
  ask(tmp_path / 'in.csv', tmp_path / 'out.csv', columns='user=who,time=when')
  np.testing.assert_allclose(
    cases.logits(tmp_path / 'out.csv'), logits, rtol=1e-6, atol=1e-6
  )
