"""Small logs and their data configs."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
from typing import Any

import pytest

from dare_jax.configs import base


@pytest.fixture
def data(tmp_path: pathlib.Path) -> Any:
  """The data section of the base config, with a data_dir of its own."""
  section = base.get_config().data
  section.data_dir = str(tmp_path / 'prepared')
  return section


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Callable[[str, str | bytes], str]:
  """Writes a file and returns its path."""

  def write_file(name: str, content: str | bytes) -> str:
    path = tmp_path / name
    if isinstance(content, str):
      content = content.encode()
    path.write_bytes(content)
    return str(path)

  return write_file
