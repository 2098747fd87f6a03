"""Fields of a behavior that follow from another one, so that no log has them.

Their raw values are those of the other; their ids are of another kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping

# The content vector of an item: its id is the vector's row, see
# `store.vector_store`.
ITEM_VECTOR = 'item_vector'
_SOURCES: Mapping[str, str] = {ITEM_VECTOR: 'item'}


def source(field: str) -> str:
  """Returns the field whose raw values a field has: itself for most.

  >>> source('item_vector'), source('category')
  ('item', 'category')
  """
  return _SOURCES.get(field, field)


def is_derived(field: str) -> bool:
  """Returns whether a field follows from another one."""
  return field in _SOURCES


def given(fields: Iterable[str]) -> tuple[str, ...]:
  """Returns the fields whose values a log, or a caller, gives.

  >>> given(['item', 'category', 'item_vector'])
  ('item', 'category')
  """
  return tuple(field for field in fields if field not in _SOURCES)
