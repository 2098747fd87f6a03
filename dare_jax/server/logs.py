"""The server's log: one JSON object a line, on standard error.

A line tells a request's id, its route, how long it took and how much was asked
for; never whose history, nor what is in it.
"""

from __future__ import annotations

from collections.abc import Callable
import datetime
import re
import secrets
import sys
import threading
from typing import Any

import msgspec

_SOUND_ID = re.compile(r'[A-Za-z0-9._:-]{1,128}')
_lock = threading.Lock()


def write(event: str, **fields: Any) -> None:
  """Writes a line."""
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='milliseconds')
  line = msgspec.json.encode({'time': now, 'event': event, **fields})
  with _lock:
    print(line.decode(), file=sys.stderr, flush=True)


def silent(event: str, **fields: Any) -> None:
  """Writes nothing, in place of `write` under `--log_requests=False`."""
  del event, fields


Log = Callable[..., None]


def request_id(given: str | None) -> str:
  """Returns the id that a client gave, or a new one for none or a bad one."""
  if given is not None and _SOUND_ID.fullmatch(given):
    return given
  return secrets.token_hex(8)
