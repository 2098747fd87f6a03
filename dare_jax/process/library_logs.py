"""Log records of libraries that this package reports in its own words."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging

_LOGGERS = ('absl', 'asyncio')


def is_to_be_shown(record: logging.LogRecord) -> bool:
  """Returns whether a log record is shown: it says what nothing else does.

  Orbax logs each error that it raises as well, and that a folder which we only
  read is read-only. What asyncio logs comes from tensorstore's threads, after
  an error that was raised.
  """
  if '/orbax/' not in record.pathname:
    return record.name != 'asyncio'
  is_reading = record.getMessage().startswith('Given directory is read only=')
  return not is_reading and record.exc_info is None


@contextlib.contextmanager
def filtered() -> Iterator[None]:
  """Leaves such records out within the context, whatever the handlers."""
  loggers = [logging.getLogger(name) for name in _LOGGERS]
  for logger in loggers:
    logger.addFilter(is_to_be_shown)
  try:
    yield
  finally:
    for logger in loggers:
      logger.removeFilter(is_to_be_shown)
