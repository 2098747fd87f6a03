"""`manifest.json`: what a bundle holds, and whether it is whole."""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
import json
import pathlib
from typing import Any

from dare_jax import errors

FILE = 'manifest.json'
FORMAT = 1
_CHUNK = 1 << 22


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a manifest with the version that its content makes."""
  return {**content, 'version': _version(content)}


def _version(content: Mapping[str, Any]) -> str:
  rest = {key: value for key, value in content.items() if key != 'version'}
  text = json.dumps(rest, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def files_in(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Returns path in the folder -> size and hash, of all files but this one."""
  return {
    path.relative_to(folder).as_posix(): {
      'bytes': path.stat().st_size,
      'sha256': digest(path),
    }
    for path in sorted(folder.rglob('*'))
    if path.is_file() and path != folder / FILE
  }


def digest(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file."""
  found = hashlib.sha256()
  with path.open('rb') as file:
    while chunk := file.read(_CHUNK):
      found.update(chunk)
  return found.hexdigest()


def read(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the manifest of a bundle, of which every file was checked.

  Raises:
    UsageError: no bundle, one of another format, or a file that is missing or
      not as it was written.
  """
  try:
    content = json.loads((folder / FILE).read_bytes())
  except (FileNotFoundError, NotADirectoryError):
    raise errors.UsageError(
      f'{folder}: no bundle there ({FILE} is missing); write one:'
      ' python -m dare_jax.export --workdir=DIR --output=BUNDLE.'
    ) from None
  except OSError as error:
    raise errors.UsageError(f'{folder / FILE}: {error.strerror}.') from None
  except ValueError:
    raise _damaged(folder, {}, f'{FILE} is not readable') from None
  if not isinstance(content, dict) or 'format' not in content:
    raise _damaged(folder, {}, f'{FILE} is not of a bundle')
  if content['format'] != FORMAT:
    raise errors.UsageError(
      f'bundle {folder}: format version {content["format"]}, but this dare_jax'
      f' reads version {FORMAT}; use the dare_jax that wrote it'
      f' ({content.get("versions", {}).get("dare_jax", "unknown")}), or export'
      f' again: {again(folder, content)}'
    )
  if content.get('version') != _version(content):
    raise _damaged(folder, content, f'{FILE} was changed')
  for name, told in content['files'].items():
    _check(folder, content, name, told)
  return content


def _check(
  folder: pathlib.Path,
  content: Mapping[str, Any],
  name: str,
  told: Mapping[str, Any],
) -> None:
  path = folder / name
  try:
    size = path.stat().st_size
    if size != told['bytes']:
      why = f'{name} has {size} bytes in place of {told["bytes"]}'
      raise _damaged(folder, content, why)
    if digest(path) != told['sha256']:
      raise _damaged(folder, content, f'{name} does not match its hash')
  except (FileNotFoundError, NotADirectoryError):
    raise _damaged(folder, content, f'{name} is missing') from None
  except OSError as error:
    raise _damaged(folder, content, f'{name}: {error.strerror}') from None


def _damaged(
  folder: pathlib.Path, content: Mapping[str, Any], why: str
) -> errors.UsageError:
  return errors.UsageError(
    f'bundle {folder}: {why}; put it back from a copy, or export again:'
    f' {again(folder, content)}'
  )


def again(folder: pathlib.Path, content: Mapping[str, Any]) -> str:
  """Returns the command that makes a bundle anew from its run."""
  lost = (
    f'python -m dare_jax.export --workdir=DIR --output={folder} --overwrite'
  )
  return str(content.get('command', lost))
