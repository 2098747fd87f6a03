"""The programs of a bundle, read when they are first called."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import copy
import functools
import pathlib
import threading
from typing import Any

from dare_jax import errors
from dare_jax.bundle import manifest as manifest_lib

Sizes = tuple[int, ...]


class Calls:
  """Programs by kind and shape."""

  def __init__(
    self, folder: pathlib.Path, manifest: Mapping[str, Any], variables: Any
  ) -> None:
    """Reads nothing yet.

    Args:
      folder: the folder of the bundle.
      manifest: the manifest of that bundle.
      variables: the variables that each program takes first.
    """
    self._folder = folder
    self._manifest = manifest
    self._variables = variables
    self._lock = threading.Lock()
    self._loaded: dict[str, Callable[..., Any]] = {}
    self._joined: dict[tuple[str, str], Callable[..., Any]] = {}
    self._files: dict[tuple[str, Sizes | None], str] = {}
    for told in manifest['programs']:
      sizes = tuple(told['shapes'].values())
      is_static = all(isinstance(size, int) for size in sizes)
      self._files[told['kind'], sizes if is_static else None] = told['file']

  def for_any_shape(self) -> Calls:
    """Returns these programs without the static ones."""
    other = copy.copy(self)
    other._files = {k: f for k, f in self._files.items() if k[1] is None}
    return other

  def __call__(self, kind: str, sizes: Sizes, *args: Any) -> Any:
    """Calls the program of a kind, and returns its outputs.

    Args:
      kind: the kind of the program: predict, encode_history, append, search or
        score.
      sizes: the sizes of the call; where no static program has them, the
        symbolic one is taken.
      *args: the arguments of the program behind the variables.
    """
    file = self._file(kind, sizes)
    call = self._loaded.get(file) or self.load(file)
    return call(self._variables, *args)

  def search_and_score(self, sizes: Sizes, *args: Any) -> Any:
    """Calls `search`, then `score` on what it found, as one program.

    To start a program takes longer than to score a few candidates.

    Args:
      sizes: numbers of users, of candidates of each, and of slots.
      *args: the arguments of `_search_and_score` behind the programs and the
        variables.
    """
    files = self._file('search', sizes), self._file('score', sizes[:2])
    call = self._joined.get(files) or self._join(files)
    return call(self._variables, *args)

  def _file(self, kind: str, sizes: Sizes) -> str:
    return self._files.get((kind, sizes)) or self._files[kind, None]

  def _join(self, files: tuple[str, str]) -> Callable[..., Any]:
    import jax  # Compiling is what takes it.

    search, score = map(self.load, files)
    call = jax.jit(functools.partial(_search_and_score, search, score))
    return self._joined.setdefault(files, call)

  @property
  def files(self) -> list[str]:
    return list(self._files.values())

  def load(self, file: str) -> Callable[..., Any]:
    """Returns a program, compiled for a shape when it is first called.

    Raises:
      UsageError: this jaxlib cannot read it, or it is not for this platform.
    """
    import jax  # Compiling is what takes it.
    from jax import export

    with self._lock:
      if file in self._loaded:
        return self._loaded[file]
      try:
        data = bytearray((self._folder / file).read_bytes())
        exported = export.deserialize(data)
        exported.mlir_module()
      except ImportError:
        raise errors.UsageError(
          'programs of bundles are read with flatbuffers:'
          f' {errors.install("export")}, or pip install flatbuffers.'
        ) from None
      except Exception as error:  # Whatever an older reader raises.
        raise self._unreadable(file, error) from None
      platform = jax.default_backend()
      names = {'gpu': 'cuda'}
      if names.get(platform, platform) not in exported.platforms:
        raise errors.UsageError(
          f'bundle {self._folder}: its programs are for'
          f' {", ".join(exported.platforms)}, and JAX runs on {platform}.'
        )
      self._loaded[file] = jax.jit(exported.call)
      return self._loaded[file]

  def _unreadable(self, file: str, error: Exception) -> errors.UsageError:
    import jaxlib

    why = (str(error).splitlines() or [''])[0]
    return errors.UsageError(
      f'bundle {self._folder}: {file}, written by jaxlib'
      f' {self._manifest["versions"]["jaxlib"]}, cannot be read by jaxlib'
      f' {jaxlib.__version__} ({type(error).__name__}: {why:.120}). JAX reads'
      ' programs of the last six months, and none of newer versions. Install'
      ' that version, or export again with this one:'
      f' {manifest_lib.again(self._folder, self._manifest)}'
    )


def _search_and_score(
  search: Callable[..., Any],
  score: Callable[..., Any],
  variables: Any,
  state: Any,
  history: Mapping[str, Any],
  targets: Mapping[str, Any],
  real: Any,
  context: Any,
) -> dict[str, Any]:
  """Returns what `score` makes, and which behaviors count.

  Args:
    search, score: the programs `search` and `score` of the bundle.
    variables: the variables that each program takes first.
    state: the state of the users, which is searched.
    history: field -> int32 [b, slots], the most recent behavior last.
    targets: field -> int32 [b, c].
    real: bool [b, c].
    context: field -> int32 [b].
  """
  import jax.numpy as jnp  # As in `Calls`.

  found = search(variables, state, targets)
  distance = found['distance']
  user = jnp.arange(len(distance))[:, None, None]
  of_found = {
    # Ids of masked places are never used.
    field: ids[user, jnp.maximum(ids.shape[1] - distance, 0)]
    for field, ids in history.items()
  }
  made = score(variables, of_found, found, targets, real, context)
  return {**made, 'distance': distance, 'mask': found['mask']}
