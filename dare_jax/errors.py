"""The errors that an entry point turns into an exit code."""


class UsageError(ValueError):
  """Wrong usage, config or data: one line says why; the process exits 2.

  The message names the field or file, what was expected, what came, and what
  to do about it.
  """


def install(extra: str) -> str:
  """Returns the command that installs an extra, for a message."""
  return f"pip install -e '.[{extra}]' in the checkout"


class Interrupted(BaseException):
  """SIGINT or SIGTERM ended a command that leaves nothing to resume.

  The process exits with 128 and the number of the signal.
  """

  def __init__(self, number: int) -> None:
    super().__init__(number)
    self.number = number


class Stopped(BaseException):
  """A signal arrived and everything is saved; the process exits 75.

  Like KeyboardInterrupt no Exception: it may be raised inside any code, and
  an `except Exception` there must not take it for that code's own failure.
  """
