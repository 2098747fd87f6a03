"""The shapes that programs are compiled for, and which of them to take."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
  """Users, candidates of each, and slots of their histories."""

  batch: int
  candidates: int
  capacity: int

  @property
  def sizes(self) -> tuple[int, int, int]:
    return self.batch, self.candidates, self.capacity

  def __str__(self) -> str:
    return f'{self.batch}x{self.candidates}x{self.capacity}'


class ProgramShapes:
  """The shapes of static programs; other calls take the symbolic program."""

  def __init__(self, shapes: Iterable[Shape], largest: int) -> None:
    """Sorts the shapes.

    Args:
      shapes: the shapes of the static programs.
      largest: number of slots that hold a whole history.
    """
    self.shapes = tuple(sorted(set(shapes)))
    self.capacities = sorted({largest, *(s.capacity for s in self.shapes)})

  def capacity(self, length: int) -> int:
    """Returns the fewest slots that hold a history, or the most there are."""
    for capacity in self.capacities:
      if capacity >= length:
        return capacity
    return self.capacities[-1]

  def candidates(self, count: int, capacity: int) -> int:
    """Returns how many candidates to score at once.

    The next larger number; fewer than `count` where all are fewer. Without a
    static program, the next power of two.
    """
    known = {s.candidates for s in self.shapes if s.capacity == capacity}
    larger = [size for size in known if size >= count]
    if larger:
      return min(larger)
    return max(known) if known else _power_of_two(count)

  def batches(
    self, users: int, candidates: int, capacity: int
  ) -> Iterator[tuple[int, int]]:
    """Yields (users, batch) of calls that score all users in turn."""
    return _turns(
      users,
      {
        s.batch
        for s in self.shapes
        if (s.candidates, s.capacity) == (candidates, capacity)
      },
    )

  def encodings(self, users: int, capacity: int) -> Iterator[tuple[int, int]]:
    """Yields (users, batch) of calls that encode all users' histories."""
    sizes = {s.batch for s in self.shapes if s.capacity == capacity}
    return _turns(users, sizes | {1} if sizes else sizes)


def _turns(users: int, sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
  ordered = sorted(sizes)
  if not ordered:
    yield users, _power_of_two(users)
    return
  while users:
    larger = [size for size in ordered if users <= size < 2 * users]
    smaller = [size for size in ordered if size <= users]
    # A batch that is half empty takes longer than two smaller ones.
    size = larger[0] if larger else max(smaller or ordered[:1])
    yield min(users, size), size
    users -= min(users, size)


def _power_of_two(count: int) -> int:
  return 1 << max(count - 1, 0).bit_length()
