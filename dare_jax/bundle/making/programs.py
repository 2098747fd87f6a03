"""A model's programs: functions of plain arrays, exported by `jax.export`.

Each takes the variables first: name -> array, such as 'item_attention'.
The others take what a program before them has given, or arrays of ids:

- `predict`: histories to logits, in one call;
- `encode_history`, `append`, `search`, `score`: the same with the search keys
  of a user kept in between, where a search can use them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
from jax import export
import jax.numpy as jnp

from dare_jax.bundle import program_shapes
from dare_jax.bundle import requests as requests_lib
from dare_jax.bundle.making import functions
from dare_jax.process import numerics

PLATFORMS = ('cpu', 'cuda', 'tpu')


@dataclasses.dataclass(frozen=True)
class Program:
  """An exported program.

  Attributes:
    kind: 'predict', 'encode_history', 'append', 'search' or 'score'.
    shapes: axis -> size, or the name of a symbol that stands for any size.
    exported: the program, as `jax.export` made it.
  """

  kind: str
  shapes: Mapping[str, int | str]
  exported: export.Exported

  @property
  def name(self) -> str:
    """Returns what its file is called."""
    sizes = 'x'.join(str(size) for size in self.shapes.values())
    any_size = any(isinstance(size, str) for size in self.shapes.values())
    return f'{self.kind}-{"any" if any_size else sizes}'


class Exporter:
  """Exports the programs of a model for some shapes, and for any."""

  def __init__(
    self, served: functions.Served, variables: functions.Variables, top_k: int
  ) -> None:
    """Makes it.

    Args:
      served: the functions that become programs.
      variables: name -> array; there may be some that no program reads.
      top_k: number of behaviors that the model keeps.
    """
    self._served = served
    self._top_k = top_k
    spec = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    self._variables = {name: spec(x) for name, x in variables.items()}

  def used(self) -> list[str]:
    """Returns the names of the variables that predictions look for.

    The model looks for those of all its parts, also where an aggregation then
    does not use what they give.
    """
    aux = ('params/aux/', 'batch_stats/aux/')
    return [
      name for name in sorted(self._variables) if not name.startswith(aux)
    ]

  def programs(
    self, shapes: tuple[program_shapes.Shape, ...], fixed_length: int | None
  ) -> Iterator[Program]:
    """Yields all programs.

    Args:
      shapes: the shapes of the static programs.
      fixed_length: number of slots of a history in the symbolic programs, where
        a model must have just so many; None: any number from `top_k` on.
    """
    yield self._any('predict', fixed_length)
    if not self._served.has_cached_keys:
      for s in shapes:
        yield self._export('predict', dataclasses.asdict(s))
      return
    for kind in ('encode_history', 'append', 'search', 'score'):
      yield self._any(kind, fixed_length)
    for capacity in sorted({s.capacity for s in shapes}):
      batches = {1, *(s.batch for s in shapes if s.capacity == capacity)}
      for batch in sorted(batches):
        sizes = {'batch': batch, 'capacity': capacity}
        yield self._export('encode_history', sizes)
      yield self._export('append', {'batch': 1, 'capacity': capacity})
    for s in shapes:
      yield self._export('search', dataclasses.asdict(s))
    for batch, candidates in sorted({(s.batch, s.candidates) for s in shapes}):
      sizes = {'batch': batch, 'candidates': candidates}
      yield self._export('score', sizes)

  def _any(self, kind: str, fixed_length: int | None) -> Program:
    axes = {
      'encode_history': ('batch', 'capacity'),
      'append': ('batch', 'capacity'),
      'score': ('batch', 'candidates'),
    }.get(kind, ('batch', 'candidates', 'capacity'))
    fixed = {} if fixed_length is None else {'capacity': fixed_length}
    free = [axis for axis in axes if axis not in fixed]
    constraints = []
    if 'capacity' in free:
      constraints.append(f'capacity >= {self._top_k}')
    symbols = export.symbolic_shape(','.join(free), constraints=constraints)
    sizes = dict(zip(free, symbols, strict=True)) | fixed
    return self._export(kind, {axis: sizes[axis] for axis in axes})

  @numerics.of_runs()
  def _export(self, kind: str, sizes: Mapping[str, Any]) -> Program:
    made: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
      'predict': (self._served.predict, self._predict),
      'encode_history': (self._served.encode_history, self._encode_history),
      'append': (self._served.append, self._append),
      'search': (self._served.search, self._search),
      'score': (self._served.score, self._score),
    }
    function, specs = made[kind]
    make = export.export(jax.jit(function), platforms=PLATFORMS)
    exported = make(self._variables, *specs(**sizes))
    told = {a: n if isinstance(n, int) else str(n) for a, n in sizes.items()}
    return Program(kind, told, exported)

  def _ids(self, *shape: Any) -> dict[str, Any]:
    return {field: _ints(*shape) for field in self._served.fields}

  def _behaviors(self, *shape: Any) -> dict[str, Any]:
    fields = (*self._served.fields, *self._times)
    return {field: _ints(*shape) for field in fields}

  def _moment(self, batch: Any) -> dict[str, Any]:
    fields = (*self._served.context_fields, *self._times)
    return {field: _ints(batch) for field in fields}

  @property
  def _times(self) -> tuple[str, ...]:
    return (requests_lib.TIME,) if self._served.reads_times else ()

  def _state(self, batch: Any, capacity: Any) -> Any:
    return jax.eval_shape(
      self._served.encode_history,
      self._variables,
      *self._encode_history(batch, capacity),
    )

  def _predict(self, batch: Any, candidates: Any, capacity: Any) -> Any:
    return (
      *self._encode_history(batch, capacity),
      self._ids(batch, candidates),
      jax.ShapeDtypeStruct((batch, candidates), jnp.bool_),
      self._moment(batch),
    )

  def _encode_history(self, batch: Any, capacity: Any) -> Any:
    return self._behaviors(batch, capacity), _ints(batch)

  def _append(self, batch: Any, capacity: Any) -> Any:
    return self._state(batch, capacity), self._behaviors(batch)

  def _search(self, batch: Any, candidates: Any, capacity: Any) -> Any:
    state = self._state(batch, capacity)
    for field in self._served.slot_fields:
      state[f'ids/{field}'] = _ints(batch, capacity)
    if self._served.has_gaps:
      state |= {'time': _ints(batch, capacity), 'now': _ints(batch)}
    return state, self._ids(batch, candidates)

  def _score(self, batch: Any, candidates: Any) -> Any:
    shape = batch, candidates, self._top_k
    found = {
      'score': jax.ShapeDtypeStruct(shape, jnp.float32),
      'distance': _ints(*shape),
      'mask': jax.ShapeDtypeStruct(shape, jnp.bool_),
    }
    for field in self._served.match_fields:
      for name in ('count', 'last'):
        found[f'{name}/{field}'] = _ints(batch, candidates)
    if self._served.has_mean:
      one = jax.eval_shape(
        self._served.search, self._variables, *self._search(1, 1, self._top_k)
      )
      width = one['mean'].shape[-1]
      found['mean'] = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    if self._served.has_gaps:
      found |= {'gap': _ints(*shape), 'since_last': _ints(batch)}
      for field in self._served.match_fields:
        found[f'ago/{field}'] = _ints(batch, candidates)
    return (
      self._behaviors(*shape),
      found,
      self._ids(batch, candidates),
      jax.ShapeDtypeStruct((batch, candidates), jnp.bool_),
      self._moment(batch),
    )


def _ints(*shape: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.int32)
