"""The same server over plain PyTorch: the model as its paper tells it.

    python -m dare_jax.bench.serving.plain --bundle=BUNDLE ...

A request looks up the attention rows of the user's whole history, scores them
for all candidates in one product, keeps the best by `torch.topk`, and reads the
representation of these. Nothing is kept of a user but ids. Tables and head are
those of a bundle, so that the logits are the same numbers; all around the model
(HTTP, JSON, raw values to ids, threads) is `dare_jax.serve` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import importlib.util
import math
import pathlib
import runpy
from typing import Any
from typing import ClassVar

import numpy as np

from dare_jax import errors
from dare_jax.bundle import arrays
from dare_jax.bundle import manifest as manifest_lib
from dare_jax.bundle import raw_ids
from dare_jax.bundle import requests as requests_lib
from dare_jax.embeddings import positions

_KIND = {
  'plan': 'decoupled',
  'scorer': 'dot',
  'search': 'score',
  'aggregation': 'softmax',
  'precision': 'float32',
  'context_fields': [],
}
_HEAD = 'params/head/'
_STATS = 'batch_stats/head/BatchNorm_0/'
_UNKNOWN_ROW = 1
Ids = Mapping[str, np.ndarray]


def is_installed() -> bool:
  """Returns whether PyTorch is."""
  return importlib.util.find_spec('torch') is not None


def check(manifest: Mapping[str, Any]) -> None:
  """Checks that the plain model can be that of a bundle.

  Raises:
    UsageError: torch is missing, or it is another model.
  """
  if not is_installed():
    raise errors.UsageError(
      'the plain model needs torch, which is not installed: pip install torch;'
      ' or leave it out with --notorch.'
    )
  for key, value in _KIND.items():
    if manifest[key] != value:
      raise errors.UsageError(
        f'the plain model is DARE in float32, {key} {value!r}; the bundle has'
        f' {manifest[key]!r}: leave it out with --notorch.'
      )


@dataclasses.dataclass(frozen=True)
class State:
  """The ids of a history, oldest first, as tensors."""

  ids: Mapping[str, Any]

  @property
  def nbytes(self) -> int:
    return sum(own.nbytes for own in self.ids.values())

  def compact(self) -> State:
    return self


class PlainBundle:
  """A PyTorch model, with the methods of `bundle.Bundle` that servers call."""

  sets: ClassVar[dict[str, str]] = {}
  user_fields, real_time, times = (), (), None

  def __init__(self, path: str) -> None:
    """Opens the tables of a bundle.

    Raises:
      UsageError: no bundle, another model, or torch is missing.
    """
    folder = pathlib.Path(path)
    manifest = manifest_lib.read(folder)
    check(manifest)
    import torch

    self.manifest = manifest
    self.name, self.version = manifest['model'], manifest['version']
    self.fields, self.context_fields = tuple(manifest['fields']), ()
    self.history_length = manifest['history_length']
    self.top_k, self.unknown_id = manifest['top_k'], manifest['unknown_id']
    self._maps = {
      field: raw_ids.RawIds(folder / 'ids', field, told)
      for field, told in manifest['ids'].items()
    }
    self._weights = {
      name: torch.from_numpy(np.array(arrays.load(folder / one['file'], one)))
      for kind in ('tables', 'parameters')
      for name, one in manifest[kind].items()
    }
    self._bias, self._times = self._positions()
    self._layers = sorted(
      {
        name.split('/')[2]
        for name in self._weights
        if name.startswith(f'{_HEAD}Dense_')
      }
    )

  def _positions(self) -> tuple[Any, Any]:
    """Returns the score and the representation of each distance."""
    table = self._weights.get('time_attention')
    if table is None:
      return None, None
    exact = len(table) - positions.num_position_ids(0)
    ids = positions.position_ids(self.history_length, exact)
    rows = table[ids]
    bias = rows @ rows[0] / math.sqrt(rows.shape[1])
    return bias, self._weights['time_representation'][ids]

  def ids(self, field: str, raw: Any) -> np.ndarray:
    return self._maps[field](raw, _UNKNOWN_ROW)

  def known_values(self, field: str, count: int) -> list[Any]:
    return self._maps[field].some(count)

  def unknown(self, field: str, ids: np.ndarray) -> np.ndarray:
    del field
    return ids == _UNKNOWN_ROW

  def warm_up(self) -> None:
    """Starts the threads of PyTorch."""
    one = {field: np.ones(1, np.int32) for field in self.fields}
    self.score([self.encode(one)], [one])

  def encode(self, history: Ids) -> State:
    """Returns the state of a history."""
    import torch

    last = slice(-self.history_length, None)
    return State(
      {
        field: torch.from_numpy(np.ascontiguousarray(ids[last], np.int64))
        for field, ids in history.items()
      }
    )

  def expand(self, state: State) -> State:
    return state

  def append(self, state: State, behavior: Mapping[str, int]) -> State:
    """Returns the state with one behavior more."""
    joined = {
      field: np.append(own.numpy(), behavior[field])
      for field, own in state.ids.items()
    }
    return self.encode(joined)

  def score(
    self,
    histories: Sequence[Ids | State],
    candidates: Sequence[Ids],
    contexts: Any = None,
    explain: bool = False,
  ) -> list[requests_lib.Scores]:
    """Returns scores, one user after the other."""
    import torch

    del contexts
    with torch.inference_mode():
      return [
        self._score(
          one if isinstance(one, State) else self.encode(one), some, explain
        )
        for one, some in zip(histories, candidates, strict=True)
      ]

  def _score(
    self, state: State, candidates: Ids, explain: bool
  ) -> requests_lib.Scores:
    import torch

    target = {
      field: torch.from_numpy(candidates[field].astype(np.int64))
      for field in self.fields
    }
    length = len(state.ids[self.fields[0]])
    keys = self._rows('attention', state.ids)
    query = self._rows('attention', target)
    scores = query @ keys.T / math.sqrt(keys.shape[1])
    if self._bias is not None:
      scores = scores + self._bias[1 : length + 1].flip(0)
    best, index = torch.topk(scores, min(self.top_k, length))
    weight = torch.softmax(best, dim=-1)
    found = {field: own[index] for field, own in state.ids.items()}
    values = self._rows('representation', found)
    own = self._rows('representation', target)
    if self._times is not None:
      values = torch.cat([values, self._times[length - index]], dim=-1)
      first = self._times[0].expand(len(own), -1)
      own = torch.cat([own, first], dim=-1)
    interest = torch.einsum('ck,ckd->cd', weight, values)
    logit = self._head(torch.cat([own, interest, own * interest], dim=-1))
    if not explain:
      return requests_lib.Scores(logit.numpy())
    distance = (length - index).numpy().astype(np.int32)
    mask = np.ones(distance.shape, bool)
    return requests_lib.Scores(logit.numpy(), distance, weight.numpy(), mask)

  def _rows(self, role: str, ids: Mapping[str, Any]) -> Any:
    import torch

    return torch.cat(
      [self._weights[f'{field}_{role}'][ids[field]] for field in self.fields],
      dim=-1,
    )

  def _head(self, x: Any) -> Any:
    import torch

    weights = self._weights
    mean, var = weights[f'{_STATS}mean'], weights[f'{_STATS}var']
    x = (x - mean) / torch.sqrt(var + 1e-5)
    x = x * weights[f'{_HEAD}BatchNorm_0/scale']
    x = x + weights[f'{_HEAD}BatchNorm_0/bias']
    for number, name in enumerate(self._layers):
      layer = f'{_HEAD}{name}/'
      x = x @ weights[f'{layer}kernel'] + weights[f'{layer}bias']
      if name != self._layers[-1]:
        slope = weights[f'{_HEAD}PReLU_{number}/negative_slope']
        x = torch.where(x >= 0, x, slope * x)
    return x[:, 0]


def main() -> None:
  """Runs the command of the server with this model in place of a bundle."""
  from dare_jax.bundle import reading

  reading.open = PlainBundle  # type: ignore[assignment]
  runpy.run_module('dare_jax.serve', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main()
