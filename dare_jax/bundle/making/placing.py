"""A folder that is written beside its place, and moved there when whole."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib
import shutil

from dare_jax import errors
from dare_jax.bundle import manifest
from dare_jax.process import locks


@contextlib.contextmanager
def beside(output: pathlib.Path, overwrite: bool) -> Iterator[pathlib.Path]:
  """Yields an empty folder that takes the place of `output` at the end.

  Should anything fail inside, or the process be killed, what was at `output`
  is still there. Two writers to one place take turns by refusal.

  Args:
    output: the folder that the bundle shall have; it is not there yet, or is
      empty.
    overwrite: whether the folder may hold a bundle, which is then replaced.

  Raises:
    UsageError: something is there, another process writes to it, or the disk
      refuses.
  """
  check(output, overwrite)
  partial = output.with_name(f'.{output.name}.partial')
  with _told(output), _locked(output):
    check(output, overwrite)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
      yield partial
      _flush(partial)
      _replace(partial, output)
    finally:
      shutil.rmtree(partial, ignore_errors=True)


def check(output: pathlib.Path, overwrite: bool) -> None:
  """Refuses a place that is taken.

  Raises:
    UsageError: a file is there, or a folder that is neither empty nor, where
      that may be overwritten, a bundle.
  """
  if not os.path.lexists(output):
    return
  if not output.is_dir():
    raise errors.UsageError(
      f'--output={output}: a file is there; expected a folder that is not.'
    )
  if not any(output.iterdir()):
    return
  if (
    not (output / manifest.FILE).is_file() or not (output / 'programs').is_dir()
  ):
    raise errors.UsageError(
      f'--output={output}: the folder has other things in it than a bundle;'
      ' choose another one.'
    )
  if not overwrite:
    raise errors.UsageError(
      f'--output={output}: a bundle is there; give --overwrite to replace it,'
      ' or choose another folder.'
    )


@contextlib.contextmanager
def _told(output: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise errors.UsageError(
      f'--output={output}: cannot be written'
      f' ({error.strerror or error}); make room or mend it, or choose another'
      ' folder.'
    ) from None


@contextlib.contextmanager
def _locked(output: pathlib.Path) -> Iterator[None]:
  output.parent.mkdir(parents=True, exist_ok=True)
  try:
    lock = locks.Lock(output.with_name(f'.{output.name}.lock'))
  except locks.HeldError as error:
    raise errors.UsageError(
      f'--output={output}: {locks.describe(error.holder)}, is exporting there;'
      ' let it end, or choose another folder.'
    ) from None
  except locks.UnsupportedError:
    yield
    return
  try:
    yield
  finally:
    lock.release()


def _flush(folder: pathlib.Path) -> None:
  """Flushes a folder to disk, so that a crash after the move loses nothing."""
  for path in [*folder.rglob('*'), folder]:
    number = os.open(path, os.O_RDONLY)
    try:
      os.fsync(number)
    finally:
      os.close(number)


def _replace(partial: pathlib.Path, output: pathlib.Path) -> None:
  old = output.with_name(f'.{output.name}.old')
  shutil.rmtree(old, ignore_errors=True)
  if output.exists():
    # A folder that is not empty cannot be replaced in one go.
    output.rename(old)
  try:
    partial.rename(output)
  except OSError:
    if old.exists():
      old.rename(output)
    raise
  shutil.rmtree(old, ignore_errors=True)
