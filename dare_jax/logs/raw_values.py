"""The values of a raw log: what each column may hold, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import polars as pl

from dare_jax.logs import raw_log
from dare_jax.logs import raw_times

VALID = '_valid'
_TEXTS = ('str', 'id', 'set')
_MISSING = '_missing'
_FIRST_ROWS = 1_000  # that tell how times are written
_TRUTH = {'false': '0', 'true': '1'}
_TRAILING_ZEROS = r'\.0*$'


def settle(
  columns: Sequence[raw_log.Column],
  dtypes: Mapping[str, pl.DataType],
  rows: pl.LazyFrame,
  collect: Callable[[pl.LazyFrame], pl.DataFrame] = pl.LazyFrame.collect,
) -> None:
  """Lets the first rows that hold a time decide how a log writes its times.

  Args:
    columns: the columns that are read.
    dtypes: column -> its type in the file.
    rows: the rows of the file, not read yet.
    collect: reads rows into memory.
  """
  for column in columns:
    notation = column.notation
    if notation is None or dtypes.get(column.name) != pl.String:
      continue
    text = pl.col(column.name)
    is_time = raw_times.is_like_time(text) & ~text.is_in(column.missing)
    for part in (rows.head(_FIRST_ROWS), rows):
      if not notation.is_settled:
        times = part.select(text.str.strip_chars()).filter(is_time)
        notation.settle(collect(times.head(_FIRST_ROWS))[column.name])


def typed(
  columns: Sequence[raw_log.Column],
  dtypes: Mapping[str, pl.DataType],
  select: Mapping[str, str],
  thorough: bool = True,
) -> tuple[list[pl.Expr], pl.Expr]:
  """Returns the expressions that read a block.

  Args:
    columns: the columns of the file.
    dtypes: column -> its type in the file.
    select: file column -> output column; others are not read.
    thorough: whether to read all that a text may stand for, see `cast`.

  Returns:
    The values under the names of `select`, and what `keep` needs;
    whether a row is well formed, or left out for a missing value.
  """
  values, valid, missing = [], pl.lit(True), []
  for column in columns:
    if column.name in select:
      dtype = dtypes[column.name]
      value, ok = cast(column, dtype, thorough)
      values.append(value.alias(select[column.name]))
      valid &= ok
      if column.missing and column.required:
        is_missing = _is_missing(column, dtype)
        missing.append(pl.when(is_missing).then(pl.lit(column.name)))
  if missing:
    first = pl.coalesce(missing).alias(_MISSING)
    values.append(first)
    valid |= first.is_not_null()
  return values, valid


def keep(
  frame: pl.DataFrame, is_valid: pl.Series, report: raw_log.RowReport
) -> pl.DataFrame:
  """Returns the rows to keep of a block; counts those with a missing value."""
  frame = frame if is_valid.all() else frame.filter(is_valid)
  if _MISSING not in frame.columns:
    return frame
  missing = frame.drop_in_place(_MISSING)
  for name, count in missing.drop_nulls().value_counts(sort=True).iter_rows():
    report.drop(f'missing {name}', count)
  return frame.filter(missing.is_null())


def cast(
  column: raw_log.Column, dtype: pl.DataType, thorough: bool = True
) -> tuple[pl.Expr, pl.Expr]:
  """Returns a column's typed values and whether they are well formed.

  Args:
    column: the column to convert.
    dtype: the type of the column in the file.
    thorough: whether to read all that a text may stand for, as '5.0' or 'true',
      which takes more passes over the text.
  """
  value = pl.col(column.name)
  if dtype.is_nested():
    return _joined(column, dtype)
  if dtype == pl.String and column.kind not in _TEXTS:
    value = value.str.strip_chars()
  if column.missing:
    value = pl.when(~_is_missing(column, dtype)).then(value)
  ok = pl.lit(True)
  if column.kind in _TEXTS:
    value = _text(value, dtype, column.kind == 'id')
    if not column.required:
      value = value.fill_null('')
    else:
      ok = value.str.len_bytes() > 0
  elif column.kind == 'label':
    value = _label(value, dtype, thorough)
  elif column.notation is not None:
    if dtype == pl.String:
      value = column.notation.read(value, thorough)
    else:
      value = raw_times.typed(value, dtype)
  else:
    value, ok = _integer(value, dtype, thorough)
  ok &= value.is_not_null()
  if column.kind == 'int':
    ok &= value >= 0
  if column.pattern is not None:
    ok &= value.cast(pl.String).str.contains(f'^(?:{column.pattern})$')
  return value, ok.fill_null(False)


def _joined(
  column: raw_log.Column, dtype: pl.DataType
) -> tuple[pl.Expr, pl.Expr]:
  """Returns what `cast` does of lists: members as text, with separators."""
  value = pl.col(column.name)
  if isinstance(dtype, pl.Array):
    value = value.arr.to_list()
  inner = getattr(dtype, 'inner', pl.Null())
  member = _text(pl.element(), inner, is_id=False).str.strip_chars()
  members = value.list.eval(
    member.filter(member.is_in(column.missing).not_() & (member != ''))
  )
  holds = pl.element().str.contains(column.separator, literal=True)
  is_clear = members.list.eval(holds).list.any().not_().fill_null(True)
  return members.list.join(column.separator).fill_null(''), is_clear


def _is_missing(column: raw_log.Column, dtype: pl.DataType) -> pl.Expr:
  value = pl.col(column.name)
  text = _text(value, dtype, is_id=False).str.strip_chars()
  is_null_missing = '' in column.missing
  found = text.is_in(column.missing).fill_null(is_null_missing)
  if dtype.is_float():
    is_nan_missing = is_null_missing or 'nan' in map(str.lower, column.missing)
    found |= value.is_nan().fill_null(False) & is_nan_missing
  return found


def _text(value: pl.Expr, dtype: pl.DataType, is_id: bool) -> pl.Expr:
  """Returns values as text: 5.0 is '5', NaN is null; 5.5 is no id."""
  if dtype == pl.Time:  # Which a cast cuts to seconds.
    return value.dt.to_string('%H:%M:%S%.f')
  if not (dtype.is_float() or dtype.is_decimal()):
    return value.cast(pl.String)
  whole = value.cast(pl.Int64, strict=False)
  text = pl.when(whole.cast(dtype) == value).then(whole.cast(pl.String))
  if is_id:
    return text
  if dtype.is_float():
    value = value.fill_nan(None)
  return text.otherwise(value.cast(pl.String))


def _label(value: pl.Expr, dtype: pl.DataType, thorough: bool) -> pl.Expr:
  """Returns 0, 1, or null for what is neither."""
  if dtype == pl.String and thorough:
    value = value.str.to_lowercase().replace(_TRUTH)
  if dtype.is_float() or dtype.is_decimal() or dtype == pl.String:
    number, is_whole = _integer(value, dtype, thorough)
    return pl.when(is_whole & number.is_in([0, 1])).then(number)
  if dtype == pl.Boolean or dtype.is_integer():
    value = value.cast(pl.Int64, strict=False)
    return pl.when(value.is_in([0, 1])).then(value)
  return pl.lit(None, pl.Int64)


def _integer(
  value: pl.Expr, dtype: pl.DataType, thorough: bool
) -> tuple[pl.Expr, pl.Expr]:
  ok = pl.lit(True)
  if dtype == pl.String:
    if thorough:
      value = value.str.replace(_TRAILING_ZEROS, '')
  elif dtype.is_float() or dtype.is_decimal():
    ok = value == value.floor()
  return value.cast(pl.Int64, strict=False), ok


def fault(row: pl.DataFrame, columns: Sequence[raw_log.Column]) -> str:
  """Says which of `columns` is not well formed in a frame of one row."""
  for column in columns:
    found = row[column.name]
    _, ok = cast(column, found.dtype)
    if row.select(ok).item():
      continue
    value = found.item()
    if found.dtype.is_nested():
      return f'{column.name}: a member holds {column.separator!r}'
    if value in (None, '') or value != value:
      return f'empty {column.name}'
    return f'{column.name}: expected {_expected(column)}, got {value!r:.40}'
  return 'not well formed'


def _expected(column: raw_log.Column) -> str:
  if column.expected or column.pattern:
    return column.expected or column.pattern or ''
  if column.notation is not None:
    return column.notation.expected
  return {
    'int': 'an integer of 0 or more',
    'real_int': 'an integer',
    'str': 'text',
    'id': 'text or a whole number',
    'label': '0 or 1 (or false or true)',
  }[column.kind]
