"""The README of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text(content: Mapping[str, Any]) -> str:
  """Returns the README for a manifest's content."""
  return f'# {content["model"]}\n'
