"""Batches that do not fit a model, refused in one line.

Else a shape would broadcast, or an error deep inside name a field alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from dare_jax import shapes
from dare_jax import types


def check(
  batch: types.Batch,
  content: Sequence[Any],
  context: Sequence[Any],
  real_time: Sequence[str] = (),
) -> None:
  """Checks fields and shapes, which are known before anything is computed.

  Args:
    batch: a batch of arrays of any kind.
    content: the features of behaviors and targets.
    context: the features of moments.
    real_time: the parts of real time that the model reads, of
      `ranker_config.REAL_TIME`.

  Raises:
    ValueError: a field is missing, or an array has another shape.
  """
  history, targets = batch.history, batch.targets
  windows = _axes('history.mask', history.mask, 'b l', 2)
  moments = _axes('end', batch.end, 'b m', 2)
  shape = _axes('targets.weight', targets.weight, 'b m c', 3)
  for name, one in (('end', moments), ('targets.weight', shape)):
    if one[: len(moments)] != (windows[0], *moments[1:])[: len(one)]:
      raise ValueError(
        f'batch: {name} {one}: expected {windows[0]} windows as history.mask'
        f' {windows} has, and {moments[1]} moments as end {moments} has.'
      )
  _has('targets.label', targets.label, shape)
  if targets.contrast is not None:
    _has('targets.contrast.mask', targets.contrast.mask, shape)
    _has('targets.contrast.log_ratio', targets.contrast.log_ratio, shape)
  if batch.start is not None:
    _has('start', batch.start, moments)
  for feature in content:
    _has_field('history.ids', history.ids, feature.name, windows)
    _has_field('targets.ids', targets.ids, feature.name, shape)
  for feature in context:
    _has_field('context', batch.context, feature.name, moments)
  if real_time:
    _has_time('now', batch.now, moments)
  if 'gap' in real_time:
    _has_time('history.time', history.time, windows)


def _axes(
  name: str, value: Any, axes: str, count: int
) -> tuple[shapes.Size, ...]:
  if len(value.shape) != count:
    raise ValueError(f'batch: {name} {value.shape}: expected [{axes}].')
  return tuple(value.shape)


def _has(name: str, value: Any, shape: tuple[shapes.Size, ...]) -> None:
  if tuple(value.shape) != shape:
    raise ValueError(f'batch: {name} {tuple(value.shape)}: expected {shape}.')


def _has_time(name: str, value: Any, shape: tuple[shapes.Size, ...]) -> None:
  if value is None:
    raise ValueError(
      f'batch: {name} is missing, which model.real_time reads: seconds, int32,'
      ' as types.History.time has them.'
    )
  _has(name, value, shape)


def _has_field(
  where: str,
  values: Mapping[str, Any],
  name: str,
  shape: tuple[shapes.Size, ...],
) -> None:
  if name not in values:
    held = ', '.join(sorted(values)) or 'nothing'
    raise ValueError(
      f'batch: {where} lacks {name!r}, which the model reads; it has {held}.'
    )
  _has(f'{where}[{name!r}]', values[name], shape)
