"""Annotations of shapes, on machines that lack the library for them."""

from __future__ import annotations

import sys
import types
from typing import Any


class _Annotation:
  """Stands for any annotation: outside tests nothing reads one."""

  def __class_getitem__(cls, item: Any) -> type:
    del item
    return cls


class _Annotations(types.ModuleType):
  """A module in which every name is an annotation."""

  def __getattr__(self, name: str) -> type[_Annotation]:
    if name.startswith('__'):
      raise AttributeError(name)
    return _Annotation


def for_annotations() -> None:
  """Lets modules be imported without jaxtyping, where it is not installed."""
  try:
    import jaxtyping  # noqa: F401
  except ModuleNotFoundError:
    sys.modules['jaxtyping'] = _Annotations('jaxtyping')
