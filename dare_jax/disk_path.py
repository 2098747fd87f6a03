"""Paths on a disk, whose folders may have any name."""

from __future__ import annotations

from collections.abc import Iterator
import glob
import os

from etils import epath
from etils.epath import gpath


class DiskPath(gpath.PosixGPath):
  """A path for libraries that look for files in a folder of ours.

  That of `epath` takes `[`, `*` and `?` in the folder's own name for a pattern,
  and finds nothing there.
  """

  def glob(self, pattern: str) -> Iterator[DiskPath]:
    """Yields what matches a pattern in this folder."""
    plain = epath.Path(glob.escape(os.fspath(self)))
    for path in plain.glob(pattern):
      yield type(self)(path)


def absolute(path: epath.PathLike) -> DiskPath:
  """Returns a path that does not depend on the working folder."""
  return DiskPath(os.path.abspath(os.path.expanduser(path)))
