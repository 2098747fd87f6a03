"""The same raw value in all the types that it comes in."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

from dare_jax import errors
from dare_jax.logs import given_values

_INTS = pl.Series([7, 5, 2**60])
_TEXTS = pl.Series(['7', '5', 'i1', str(2**60)])
_FLOATS = pl.Series(['7.0', '5.0', '2.5'])

_SEQUENCES = {
  'list': [7, 5],
  'tuple': (7, 5),
  'range': range(7, 4, -2),
  'floats': [7.0, 5.0],
  'texts': ['7', '5'],
  'texts of floats': ['7.0', '5.'],
  'mixed': ['7', np.float64(5)],
  'scalars': [np.int32(7), np.uint8(5)],
  'decimals': [decimal.Decimal(7), decimal.Decimal('5.0')],
  'bytes': [b'7', b'5'],
  **{
    f'numpy {dtype}': np.array([7, 5], dtype)
    for dtype in ('i1', 'u2', 'i4', 'u8', 'f2', 'f4', 'f8', 'U1', 'S1', 'O')
  },
  'pandas': pd.Series([7, 5]),
  'pandas floats': pd.Series([7.0, 5.0]),
  'pandas nullable': pd.Series([7, 5], dtype='Int64'),
  'pandas texts': pd.Series(['7', '5']),
  'pandas strings': pd.Series(['7', '5'], dtype='string'),
  'pandas index': pd.Index([7, 5]),
  'pandas categorical': pd.Categorical([7, 5]),
  'pandas categories': pd.Series(['7', '5'], dtype='category'),
  'polars': pl.Series([7, 5]),
  'polars unsigned': pl.Series([7, 5], dtype=pl.UInt8),
  'polars floats': pl.Series([7.0, 5.0], dtype=pl.Float32),
  'polars texts': pl.Series(['7', '5']),
  'polars categories': pl.Series(['7', '5'], dtype=pl.Categorical),
  'generator': (value for value in [7, 5]),
}


@pytest.mark.parametrize('name', [n for n in _SEQUENCES if n != 'generator'])
def test_all_types_are_the_same_value(name):
  raw = _SEQUENCES[name]
  assert given_values.as_known('item', raw, _INTS).to_list() == [7, 5]
  if name == 'texts of floats':  # Text of a log of text is what it is.
    return
  assert given_values.as_known('item', raw, _TEXTS).to_list() == ['7', '5']


def test_a_generator():
  found = given_values.as_known('item', _SEQUENCES['generator'], _INTS)
  assert found.to_list() == [7, 5]


@pytest.mark.parametrize(
  'raw',
  [
    [7, None],
    [7, float('nan')],
    [7, pd.NA],
    ['7', pd.NaT],
    np.array([7.0, np.nan]),
    np.ma.masked_array([7, 5], [False, True]),
    pd.Series([7, None]),
    pd.Series([7, None], dtype='Int64'),
    pd.Series(['7', None], dtype='string'),
    pd.Series(['7', None], dtype='category'),
    pl.Series([7, None]),
    pl.Series(['7', None]),
  ],
)
def test_missing_values_are_null(raw):
  assert given_values.as_known('item', raw, _INTS).to_list() == [7, None]
  assert given_values.as_known('item', raw, _TEXTS).to_list() == ['7', None]


def test_no_values():
  for raw in ([], (), np.array([]), pd.Series([], dtype=object), pl.Series([])):
    assert given_values.as_known('item', raw, _INTS).to_list() == []
    assert given_values.as_known('item', raw, _TEXTS).to_list() == []


def test_a_log_of_floats_has_them_as_text():
  found = given_values.as_known('item', [7, 5.0, 2.5, '5.0', 9], _FLOATS)
  assert found.to_list() == ['7.0', '5.0', '2.5', '5.0', '9']


def test_what_no_log_of_integers_can_have_is_not_known():
  """It is a whole number all the same."""
  raw = [2**70, -(2**64), np.uint64(2**64 - 1)]
  assert given_values.as_known('item', raw, _INTS).null_count() == 3
  narrow = pl.Series([7], dtype=pl.Int8)
  found = given_values.as_known('item', [7, 300], narrow)
  assert (found.to_list(), found.dtype) == ([7, None], pl.Int8)


def test_large_ids_are_exact():
  large = 2**60
  for raw in ([large], np.array([large]), [str(large)], pl.Series([large])):
    assert given_values.as_known('item', raw, _INTS).to_list() == [large]
    assert given_values.as_known('item', raw, _TEXTS).to_list() == [str(large)]


@pytest.mark.parametrize(
  ('raw', 'told'),
  [
    ([7, 2.5], '2.5 .float., number 2 of them'),
    (pd.Series([2.5, None]), 'number 1 of them'),
    ([7, True], 'true or false'),
    (np.array([True]), 'true or false'),
    (pd.Series([True]), 'true or false'),
    (pl.Series([True]), 'true or false'),
    ([[7]], 'neither a number nor text'),
    (pl.Series([[7]]), 'neither a number nor text'),
    ([datetime.date(2024, 1, 1)], 'neither a number nor text'),
    (np.array(['2024-01-01'], 'M8[ns]'), 'expected numbers or text'),
    (pd.Series(pd.to_datetime(['2024-01-01'])), 'expected numbers or text'),
    (pl.Series([datetime.date(2024, 1, 1)]), 'neither a number nor text'),
    ([float('inf')], 'infinite'),
    ([float(2**60)], 'stands for several whole numbers'),
    (pd.Series([2**60, None]), 'stands for several whole numbers'),
    (np.array([2**25], np.float32), 'stands for several whole numbers'),
    ([np.float32(2**25)], 'stands for several whole numbers'),
    (pl.Series([2.0**25], dtype=pl.Float32), 'stands for several'),
    ([b'\xff'], 'not UTF-8'),
    ('75', 'also for a single one'),
    (b'75', 'also for a single one'),
    (75, 'also for a single one'),
    ({7: 5}, 'also for a single one'),
    ({7, 5}, 'also for a single one'),
    (np.array([[7]]), 'shape .1, 1.'),
    (np.array(7), 'shape ..'),
    (pd.DataFrame({'item': [7]}), 'shape .1, 1.'),
    (pl.DataFrame({'item': [7]}), 'also for a single one|neither a number'),
  ],
)
def test_what_cannot_be_a_value_is_refused(raw, told):
  for known in (_INTS, _TEXTS):
    with pytest.raises(errors.UsageError, match=told):
      given_values.as_known('item', raw, known)


def test_text_in_a_log_of_integers_is_refused():
  for raw in (['i1'], ['5.5'], [7, '5e3'], np.array(['x'])):
    with pytest.raises(errors.UsageError, match='the log has whole numbers'):
      given_values.as_known('item', raw, _INTS)
  found = given_values.as_known('item', [' 7', '', '+5'], _INTS)
  assert found.to_list() == [7, None, 5]
