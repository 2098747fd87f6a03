"""What is told beside a checkpoint: a JSON with a checksum of its own."""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import Any
import zlib

from etils import epath
import orbax.checkpoint as ocp

from dare_jax import storage

# Checksums of the values, which Orbax does not check, and of the description.
VALUES = 'values_checksum'
DATA, VECTORS = 'data_fingerprint', 'vectors_fingerprint'
_CHECKSUM = 'crc32'


def seal(description: Mapping[str, Any], values: int) -> dict[str, Any]:
  """Returns a description as JSON has it, with two checksums.

  Args:
    description: what is told beside the checkpoint.
    values: the checksum of the arrays; that of the description is added.
  """
  sealed = json.loads(json.dumps({**description, VALUES: values}))
  return sealed | {_CHECKSUM: _crc(sealed)}


def read(path: epath.Path) -> dict[str, Any]:
  """Returns the description of the checkpoint in a folder.

  Raises:
    Exception: of any kind, where it is damaged.
  """
  handler = ocp.JsonCheckpointHandler()
  sealed = dict(handler.restore(path / 'description'))
  if sealed.pop(_CHECKSUM, None) != _crc(sealed):
    raise ValueError('the checksum of description does not match')
  return sealed


def trained_on(directory: epath.Path, key: str = DATA) -> str | None:
  """Returns the fingerprint of the data that checkpoints were trained on.

  Args:
    directory: folder of the checkpoints of a run; damaged ones are passed over.
    key: `DATA`, or `VECTORS` for that of content vectors.

  Returns:
    None if there is no checkpoint that tells.
  """
  for kind in ('last', 'best'):
    names = storage.names(directory / kind)
    for step in sorted((int(n) for n in names if n.isdigit()), reverse=True):
      try:
        return str(read(directory / kind / str(step))[key])
      except Exception:  # A damaged file makes Orbax raise various errors.
        continue
  return None


def _crc(description: Mapping[str, Any]) -> int:
  return zlib.crc32(json.dumps(description, sort_keys=True).encode())
