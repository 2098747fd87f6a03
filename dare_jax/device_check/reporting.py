"""What the parts of the check find, kept line by line as it is found."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import pathlib
import time
import traceback
from typing import Any


class Report:
  """The rows of a check; each is on disk before the next is measured."""

  def __init__(self, path: pathlib.Path, part: str, end: float) -> None:
    """Goes on with a file.

    Args:
      path: the file of JSON lines.
      part: the name of the part whose rows are added.
      end: when this part should be done, as `time.time()` tells it.
    """
    self._path = path
    self._part = part
    self._end = end

  def add(
    self,
    case: str,
    measure: str,
    value: Any,
    passed: bool | None = None,
    note: str = '',
  ) -> None:
    """Keeps one row.

    Args:
      case: what was measured.
      measure: the quantity that was measured, its unit in the name.
      value: a number or a text.
      passed: whether it is as it must be; None: it is a figure, no test.
      note: what a reader should know.
    """
    row = {
      'part': self._part,
      'case': case,
      'measure': measure,
      'value': value,
      'passed': passed,
      'note': note,
    }
    with self._path.open('a') as file:
      file.write(json.dumps(row) + '\n')

  def skip(self, case: str, reason: str) -> None:
    """Says why a case was left out."""
    self.add(case, 'skipped', None, note=reason)

  @contextlib.contextmanager
  def case(self, name: str) -> Iterator[None]:
    """What fails inside is a failed row, and does not end the part."""
    try:
      yield
    except Exception as error:  # Whatever a device or a compiler raises.
      traceback.print_exc()
      lines = str(error).strip().splitlines() or ['']
      text = f'{type(error).__name__}: {lines[0]}'
      self.add(name, 'error', None, passed=False, note=text[:300])

  def has_time(self, case: str, seconds: float) -> bool:
    """Whether so many seconds are left; if not, says that a case is left out.

    Args:
      case: what would take them.
      seconds: a rough guess of the time that the next case takes.
    """
    if time.time() + seconds <= self._end:
      return True
    self.skip(case, 'no time was left for it')
    return False

  def rows(self) -> list[dict[str, Any]]:
    """Returns all rows so far, of this part and those before."""
    return read(self._path)

  def value(self, measure: str) -> float | None:
    """Returns a figure that an earlier part has measured, if it has."""
    for row in self.rows():
      if row['measure'] == measure:
        return row['value']
    return None


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows of a file; the last may be cut where a process died."""
  rows = []
  for line in path.read_text().splitlines():
    with contextlib.suppress(json.JSONDecodeError):
      rows.append(json.loads(line))
  return rows
