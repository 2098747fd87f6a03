"""The errors with which requests are refused."""

from __future__ import annotations

from collections.abc import Mapping


class Problem(Exception):
  """An answer that is no success: `{"error": {"field", "message"}}`.

  Attributes:
    status: the status code of HTTP.
    field: the field of the request that is wrong; '' where none is.
    message: what was expected, and what came.
    headers: the headers of the answer.
  """

  def __init__(
    self,
    status: int,
    field: str,
    message: str,
    headers: Mapping[str, str] | None = None,
  ) -> None:
    super().__init__(message)
    self.status, self.field, self.message = status, field, message
    self.headers = dict(headers or {})


def bad(field: str, message: str) -> Problem:
  return Problem(400, field, message)


def later(status: int, message: str, seconds: int = 1) -> Problem:
  """Returns the refusal of a request that may come again in some seconds."""
  return Problem(status, '', message, {'Retry-After': str(seconds)})
