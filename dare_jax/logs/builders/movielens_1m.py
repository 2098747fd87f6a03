"""MovieLens 1M: a million ratings of movies by 6,040 users."""

from __future__ import annotations

import pathlib
import zipfile

import polars as pl

from dare_jax import errors
from dare_jax.logs import event_log
from dare_jax.logs import raw_log
from dare_jax.logs.builders import base
from dare_jax.logs.values import set_values

_EXPECTED = "MovieLens 1M's ml-1m.zip, or the folder it unpacks to"
_GENRES = 'genres'
_UNKNOWN_GENRES = '(no genres listed)'


class Movielens1m(base.LogBuilder):
  """Ratings of MovieLens 1M (GroupLens), each taken as one behavior.

  An item is a movie, its category the whole combination of its genres, such as
  `Animation|Children's|Comedy`: the finest class of movies that the data names.

  `data.fields=('genres',)` adds the genres as a set: movies of which some are
  the same are alike to the model.
  """

  FIELDS = (_GENRES,)

  @property
  def schema(self) -> event_log.LogSchema:
    fields = tuple(self.options.fields)
    return event_log.LogSchema(
      fields=fields, sets=dict.fromkeys(fields, set_values.SEPARATOR)
    )

  def read_log(self) -> event_log.EventLog:
    """Reads ratings.dat and movies.dat, joined by movie."""
    report = raw_log.RowReport()
    path = _input(self.options.input)
    movies, bad_movies = _table(path, 'movies.dat', ('item', 'title', 'genres'))
    ratings, bad = _table(
      path, 'ratings.dat', ('user', 'item', 'rating', 'time')
    )
    if bad_movies:
      report.notes.append(f'movies.dat: {len(bad_movies)} malformed lines')
    numbers = ratings.select(
      pl.col('line'),
      pl.col('user', 'item', 'time').cast(pl.Int64, strict=False),
    )
    lowest = pl.min_horizontal('user', 'item', 'time')
    good = numbers.drop_nulls().filter(lowest >= 0)
    wrong = numbers.join(good, on='line', how='anti', maintain_order='left')
    bad = sorted([*bad, *wrong['line'].to_list()])
    report.rows_read = len(good) + len(bad)
    report.malformed = len(bad)
    report.drop('malformed', len(bad))
    report.examples = [
      f'ratings.dat, line {line}' for line in bad[: raw_log.MAX_EXAMPLES]
    ]
    raw_log.check_share(path, report, self.options.max_malformed_share)
    genres = movies.select(
      pl.col('item').cast(pl.Int64, strict=False), category='genres'
    ).unique('item', keep='last')
    block = good.join(genres, on='item', how='left', maintain_order='left')
    untyped = int(block['category'].null_count())
    if untyped:
      report.notes.append(
        f'{untyped} ratings of movies without genres: category'
        f' {_UNKNOWN_GENRES}'
      )
    block = block.with_columns(pl.col('category').fill_null(_UNKNOWN_GENRES))
    for field, separator in self.schema.sets.items():
      texts = block['category'].replace(_UNKNOWN_GENRES, '').alias(field)
      block = block.with_columns(set_values.of_series(texts, separator))
    return event_log.encode([block], self.schema, report)


def _input(given: str | None) -> pathlib.Path:
  if given and pathlib.Path(given).expanduser().is_dir():
    return pathlib.Path(given).expanduser()
  return raw_log.require_file(given, _EXPECTED)


def _content(path: pathlib.Path, name: str) -> bytes:
  """Returns a member of the archive or a file of the folder."""
  try:
    if path.is_dir():
      found = sorted([*path.glob(name), *path.glob(f'*/{name}')])
      if found:
        return found[0].read_bytes()
    else:
      with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
          if pathlib.PurePath(member).name == name:
            return archive.read(member)
  except zipfile.BadZipFile as error:
    raise errors.UsageError(f'{path}: {error}; expected {_EXPECTED}.') from None
  raise errors.UsageError(f'{path}: holds no {name}; expected {_EXPECTED}.')


def _table(
  path: pathlib.Path, name: str, columns: tuple[str, ...]
) -> tuple[pl.DataFrame, list[int]]:
  """Reads a file of fields between `::`, Latin-1.

  Returns:
    The well-formed rows as strings, with their `line` numbers, and the numbers
    of the lines that have another count of fields.

  Raises:
    UsageError: missing or empty file.
  """
  text = _content(path, name).decode('latin-1')
  if not text.strip():
    raise errors.UsageError(f'{path}: {name} is empty; expected {_EXPECTED}.')
  # Not splitlines: Latin-1 text may hold other characters that it breaks at.
  rows = text.replace('\r\n', '\n').removesuffix('\n').split('\n')
  lines = pl.DataFrame({'text': rows}).with_row_index('line', 1)
  fields = pl.col('text').str.split_exact('::', len(columns))
  names = [*columns, 'extra']
  table = lines.select('line', fields.struct.rename_fields(names)).unnest(
    'text'
  )
  last = pl.col(columns[-1])
  good = table.filter(
    last.is_not_null() & (last != '') & pl.col('extra').is_null()
  ).drop('extra')
  bad = table.join(good, on='line', how='anti', maintain_order='left')
  return good, bad['line'].to_list()
