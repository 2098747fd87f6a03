"""What is asked: users by Zipf's law, their histories and candidates."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import re
from typing import Any

import msgspec
import numpy as np

from dare_jax import errors
from dare_jax.bench.serving import load
from dare_jax.logs import derived_fields

# Events of one body: it stays below what a server takes.
_EVENTS = 5_000
_MOST_VALUES = 20_000
_MIXED = 'mixed'
_FORM = re.compile(r'([1-9]\d*)x([1-9]\d*)')


@dataclasses.dataclass(frozen=True)
class Case:
  """A kind of request.

  Attributes:
    candidates: the least and the largest number of candidates of a request.
    history: the least and the largest number of behaviors of a user.
  """

  candidates: tuple[int, int]
  history: tuple[int, int]

  def __str__(self) -> str:
    if self.candidates[0] == self.candidates[1]:
      return f'{self.candidates[0]}x{self.history[0]}'
    return _MIXED


def parse(names: Sequence[str], most: Case) -> list[Case]:
  """Returns the cases of a flag.

  >>> [str(case) for case in parse(['20x200'], Case((1, 1000), (200, 50_000)))]
  ['20x200']

  Args:
    names: each 'CANDIDATESxBEHAVIORS', or 'mixed'.
    most: the case that 'mixed' stands for.

  Raises:
    UsageError: another form, or more behaviors than the bundle is shown.
  """
  found = []
  for name in names:
    match = _FORM.fullmatch(name)
    if name == _MIXED:
      found.append(most)
    elif match is None:
      raise errors.UsageError(
        f'--cases: {name!r}: expected {_MIXED} or CANDIDATESxBEHAVIORS, such as'
        ' 500x10000.'
      )
    else:
      candidates, history = int(match[1]), int(match[2])
      found.append(Case((candidates,) * 2, (history,) * 2))
    if found[-1].history[1] > most.history[1]:
      raise errors.UsageError(
        f'--cases: {name}: the bundle is shown {most.history[1]} behaviors of a'
        ' history; ask for no more.'
      )
  return found


class Traffic:
  """Requests of one case, drawn from the raw values that a bundle knows.

  Attributes:
    users: names of the users.
    lengths: int64 [users], number of behaviors of each user.
  """

  def __init__(self, bundle: Any, case: Case, users: int, seed: int) -> None:
    """Draws users, not their events.

    Args:
      bundle: the bundle whose fields and raw values requests name.
      case: the sizes of a request.
      users: number of users.
      seed: seed of everything that is drawn.
    """
    self._rng = np.random.default_rng(seed)
    self._case = case
    self._values = {
      field: np.array(bundle.known_values(field, _MOST_VALUES), dtype=object)
      for field in derived_fields.given(bundle.fields)
    }
    self._contexts = {
      field: bundle.known_values(field, 1)[0] for field in bundle.context_fields
    }
    self.users = [f'{case}-{number}' for number in range(users)]
    self.lengths = self._between(case.history, users)
    # The n-th user asks in proportion to 1 / n.
    weight = 1 / np.arange(1, users + 1)
    self._share = weight / weight.sum()

  def events(self) -> Iterator[bytes]:
    """Yields the requests that give a server the users' histories."""
    for user, length in zip(self.users, self.lengths.tolist(), strict=True):
      for first in range(0, length, _EVENTS):
        count = min(_EVENTS, length - first)
        rows = self._rows(count)
        for number, row in enumerate(rows, first):
          row.update(event_id=number, time=number)
        body = msgspec.json.encode({'events': rows})
        yield load.post(f'/users/{user}/events', body)

  def of_each(self) -> list[bytes]:
    """Returns a request of each user, in their order."""
    return [self._request(user) for user in range(len(self.users))]

  def some(self, count: int) -> list[bytes]:
    """Returns requests of users drawn by Zipf's law."""
    drawn = self._rng.choice(len(self.users), count, p=self._share)
    return [self._request(user) for user in drawn.tolist()]

  def _request(self, user: int) -> bytes:
    count = int(self._between(self._case.candidates, 1)[0])
    body: dict[str, Any] = {
      'user_id': self.users[user],
      'candidates': self._rows(count),
    }
    if self._contexts:
      body['context'] = self._contexts
    return load.post('/score', msgspec.json.encode(body))

  def _rows(self, count: int) -> list[dict[str, Any]]:
    columns = {
      field: values[self._rng.integers(len(values), size=count)].tolist()
      for field, values in self._values.items()
    }
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]

  def _between(self, limits: tuple[int, int], count: int) -> np.ndarray:
    """Draws whole numbers, log-uniformly: int64 [n]."""
    least, most = np.log(limits)
    drawn = np.exp(self._rng.uniform(least, most, count))
    return np.clip(np.rint(drawn), *limits).astype(np.int64)
