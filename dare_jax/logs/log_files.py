"""Which files a log is made of: one, those below a folder, or of a pattern."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import errno
import fnmatch
import os
import pathlib
import re
import urllib.parse

from dare_jax import errors
from dare_jax.logs import compression

# What Hive and Spark call a folder whose rows have no value.
_NO_VALUE = '__HIVE_DEFAULT_PARTITION__'
_PARTITION = re.compile(r'([^=/]+)=([^/]*)')
_PATTERN = re.compile(r'[*?[]')
_COMPRESSED = ('.gz', '.gzip', '.zst', '.zstd')
_SHOWN = 4
_PARQUET = 'Parquet'


@dataclasses.dataclass(frozen=True)
class Part:
  """One file of a log.

  Attributes:
    path: the path of the file.
    name: its path below the input; what it is called in messages.
    partition: column -> value that folders `column=value` give all its rows,
      as text; None where they have no value.
  """

  path: pathlib.Path
  name: str
  partition: Mapping[str, str | None]


def find(given: str | None, expected: str) -> list[Part]:
  """Returns the files of a log, in the order of their names.

  Numbers in names are in the order of numbers: `part-2` comes before `part-10`.
  Files whose name, or a folder's below the input, begins with `.` or `_`, and
  those that end in `.crc`, hold no rows where Spark writes; they are left out,
  as are empty files beside others.

  Args:
    given: a file, a folder, or a pattern with `*`, `?`, `[...]` or `**`. A
      name that exists is taken as it is, whatever characters it has.
    expected: what the log should be, in words.

  Raises:
    UsageError: nothing given or there, unreadable, empty, or files of several
      kinds.
  """
  if not given:
    raise errors.UsageError(
      f'data.input is not set: expected the path of {expected}; pass'
      ' --input=PATH to prepare or --config.data.input=PATH to train.'
    )
  try:
    parts = listed(given)
    filled = [part for part in parts if part.path.stat().st_size]
  except OSError as error:
    where = f': {error.filename}' if error.filename else ''
    raise errors.UsageError(
      f'data.input={given}: {error.strerror}{where}; expected {expected}.'
    ) from None
  for part in parts:
    if not part.path.is_file() or not os.access(part.path, os.R_OK):
      raise errors.UsageError(
        f'data.input={given}: no permission to read {part.path}, or it is no'
        f' regular file; expected {expected}.'
      )
  if not filled:
    raise errors.UsageError(f'{given}: the log is empty; expected {expected}.')
  _require_one_kind(given, filled)
  return filled


def listed(given: str) -> list[Part]:
  """Returns the files that a path or pattern names, of whatever kind.

  Raises:
    OSError: a folder that cannot be read, or there is no such file.
  """
  root, found = _expand(pathlib.Path(given).expanduser())
  files: list[pathlib.Path] = []
  for path in found:
    files += _below(path) if path.is_dir() else [path]
  if not files:
    reason = 'no such file'
    if found:
      reason = 'the folder has no files'
    elif _PATTERN.search(given):
      reason = 'no such file, and none whose name has this pattern'
    raise FileNotFoundError(errno.ENOENT, reason)
  names = {str(file.relative_to(root)): file for file in files}
  return [
    Part(names[name], name, _partition(name))
    for name in sorted(names, key=_order)
  ]


def _expand(path: pathlib.Path) -> tuple[pathlib.Path, list[pathlib.Path]]:
  """Returns the folder that names count from, and the files and folders.

  It is the given folder, or the last one before a pattern, but above all
  folders `column=value`, so that a part's name has these.
  """
  parts = path.parts[1:] if path.anchor else path.parts
  root, is_fixed = pathlib.Path(path.anchor), True
  places = [root]
  for part in parts:
    above, places = places, []
    for place in above:
      exact = place / part
      if exact.exists() or exact.is_symlink():
        places.append(exact)
      elif _PATTERN.search(part) and place.is_dir():
        places += _matches(place, part)
        is_fixed = False
    is_fixed &= not _PARTITION.fullmatch(part)
    if is_fixed and places and places[0].is_dir():
      root = places[0]
  return root, places


def _matches(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  if pattern == '**':
    return [folder, *(path for path, _ in _walk(folder) if path != folder)]
  is_match = re.compile(fnmatch.translate(pattern)).match
  return [
    folder / name
    for name in os.listdir(folder)
    if is_match(name) and (pattern[0] == name[0] or not _is_beside(name))
  ]


def _below(folder: pathlib.Path) -> list[pathlib.Path]:
  return [
    path / name
    for path, names in _walk(folder)
    for name in names
    if not _is_beside(name)
  ]


def _walk(
  folder: pathlib.Path,
) -> Iterator[tuple[pathlib.Path, Sequence[str]]]:
  """Yields each folder, links followed once, and the names of its files."""

  def fail(error: OSError) -> None:
    raise error

  seen: set[str] = set()
  for path, folders, names in os.walk(folder, onerror=fail, followlinks=True):
    if os.path.realpath(path) in seen:
      folders.clear()
      continue
    seen.add(os.path.realpath(path))
    folders[:] = [name for name in folders if not _is_beside(name)]
    yield pathlib.Path(path), names


def _is_beside(name: str) -> bool:
  """Returns whether a file or folder is beside the log, not of it."""
  is_hidden = name.startswith(('.', '_')) and '=' not in name
  return is_hidden or name.endswith('.crc')


def _order(name: str) -> list[list[tuple[int, str]]]:
  """Sorts folder by folder, and runs of digits as numbers."""
  return [
    [
      (int(text), text) if text.isdecimal() else (-1, text)
      for text in re.split(r'(\d+)', component)
    ]
    for component in pathlib.PurePath(name).parts
  ]


def _partition(name: str) -> dict[str, str | None]:
  """Returns the values that the folders of a name give."""
  values: dict[str, str | None] = {}
  for component in pathlib.PurePath(name).parts[:-1]:
    if match := _PARTITION.fullmatch(component):
      key, value = (urllib.parse.unquote(text) for text in match.groups())
      values[key] = None if value == _NO_VALUE else value
  return values


def _require_one_kind(given: str, parts: Sequence[Part]) -> None:
  """Refuses files that cannot all be of one log."""
  kinds: dict[str, list[Part]] = {}
  for part in parts:
    kinds.setdefault(_kind(part.path), []).append(part)
  for kind, others in kinds.items():
    if '' in kinds and kind not in ('', _PARQUET):  # `part-0`, `part-1.csv`
      patterns = {_pattern(part.path) for part in others}
      if all(_pattern(part.path) in patterns for part in kinds['']):
        del kinds['']
        break
  if len(kinds) > 1:
    names = [
      f'{found[0].name} ({kind or "no ending"})'
      for kind, found in kinds.items()
    ]
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    raise errors.UsageError(
      f'data.input={given}: holds files of {len(kinds)} kinds,'
      f' {", ".join(names[:_SHOWN])}{more}; expected one log. Give the name of'
      " its file, or a pattern that only its files have, such as 'DIR/*.csv'."
    )


def _pattern(path: pathlib.Path) -> str:
  """Returns a name without its ending, # for each number; '' without any."""
  stem = path.name.partition('.')[0]
  return re.sub(r'\d+', '#', stem) if re.search(r'\d', stem) else ''


def _kind(path: pathlib.Path) -> str:
  if compression.is_parquet(path):
    return _PARQUET
  suffix = path.suffix.lower()
  if suffix in _COMPRESSED:
    suffix = path.with_suffix('').suffix.lower()
  # Not a date or number, as in `log.2024-05-01`.
  return suffix if re.fullmatch(r'\.[a-z]\w*', suffix) else ''
