"""What the fields of a config may be."""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import ml_collections

from dare_jax import errors
from dare_jax.configs import base
from dare_jax.data import negatives
from dare_jax.data import options as data_options
from dare_jax.data import split_times
from dare_jax.data import splits
from dare_jax.embeddings import content_vectors
from dare_jax.experiments import options as run_options
from dare_jax.training import options as train_options

# What is expected, when that is met, and of which fields. None is checked
# apart; what is checked where it is used is not here: sizes of a model, the
# made log, positions of a split.
_RANGES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
  (
    '1 or more',
    lambda value: value >= 1,
    (
      'data.history_length',
      'data.max_train_moments',
      'data.min_item_count',
      'data.prefetch',
      'model.top_k',
      'model.interest_heads',
      'model.context_dim',
      'model.further_dim',
      'model.cluster_size',
      'model.cluster_every_steps',
      'model.hash_width',
      'optim.row_sparse_from',
      'train.batch_size',
      'train.moments_per_window',
      'train.log_every_steps',
      'eval.batch_size',
      'checkpoint.keep_last',
    ),
  ),
  (
    '0 or more',
    lambda value: value >= 0,
    (
      'seed',
      'data.min_events',
      'data.min_history',
      'data.num_negatives',
      'data.in_batch_negatives',
      'model.attention_init',
      'model.representation_init',
      'optim.aux_weight',
      'optim.pointwise_weight',
      'optim.softmax_weight',
      'optim.l2',
      'optim.loss_epsilon',
      'optim.table_weight_decay',
      'train.steps',
      'eval.every_steps',
      'checkpoint.every_steps',
    ),
  ),
  (
    'a number above 0',
    lambda value: value > 0,
    ('optim.learning_rate', 'optim.table_learning_rate', 'train.epochs'),
  ),
  (
    'a share from 0 to 1',
    lambda value: 0 <= value <= 1,
    ('data.max_malformed_share',),
  ),
  (
    'a share from 0 to below 1',
    lambda value: 0 <= value < 1,
    ('data.unknown_rate', 'model.norm_momentum'),
  ),
  (
    'a share from 0.05 to below 1, or None for histories of one length',
    lambda value: 0.05 <= value < 1,
    ('data.max_padding',),
  ),
)


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UsageError for a value out of its range, or two that exclude."""
  check_fields(config)
  check_together(run_options.of_config(config), config.model.top_k)


def check_fields(config: ml_collections.ConfigDict) -> None:
  """Raises UsageError for a value out of its range, of each field alone."""
  _check_given(config, base.get_config())
  for expected, is_met, fields in _RANGES:
    for field in fields:
      value = _get(config, field)
      if value is not None and not (math.isfinite(value) and is_met(value)):
        raise errors.UsageError(f'{field}={value}: expected {expected}.')
  for field in ('model.hidden', 'model.aux_hidden'):
    widths = _get(config, field)
    if not all(isinstance(width, int) and width >= 1 for width in widths):
      raise errors.UsageError(
        f'{field}={tuple(widths)}: expected widths of 1 or more, as in'
        f' --config.{field}=200,80.'
      )
  split_times.check(data_options.of_section(config.data))
  for field, known in (
    ('split', tuple(splits.PROTOCOLS)),
    ('exclude', negatives.EXCLUDE),
  ):
    if config.data[field] not in known:  # Before a long log is read.
      raise errors.UsageError(
        f'data.{field}={config.data[field]!r}: expected one of'
        f' {", ".join(known)}.'
      )
  train_options.of_section(config.optim)
  _check_vectors(config)


def _check_given(
  config: ml_collections.ConfigDict,
  default: ml_collections.ConfigDict,
  path: str = '',
) -> None:
  """Raises UsageError for None where the default is a value."""
  for name, value in default.items():
    if isinstance(value, ml_collections.ConfigDict):
      _check_given(config[name], value, f'{path}{name}.')
    elif value is not None and config[name] is None:
      raise errors.UsageError(
        f'{path}{name}=None: expected a value; leave it out for the default,'
        f' {value!r}.'
      )


def check_together(options: run_options.RunOptions, top_k: int) -> None:
  """Checks options that depend on each other.

  Args:
    options: the options of a run.
    top_k: number of behaviors that its search keeps.

  Raises:
    UsageError: two of them exclude each other.
  """
  data, train = options.data, options.train
  if data.max_padding is not None and options.evaluation.drop_last:
    raise errors.UsageError(
      'eval.drop_last=True leaves out the last rows of the split: with'
      ' data.max_padding the longest histories come last; set it to None.'
    )
  if train.moments_per_window > 1 and not data.group_candidates:
    raise errors.UsageError(
      f'train.moments_per_window={train.moments_per_window} needs'
      ' data.group_candidates=True: single targets do not share a window.'
    )
  _check_losses(options.optim, data)
  if top_k > data.history_length:
    raise errors.UsageError(
      f'model.top_k={top_k} exceeds data.history_length={data.history_length};'
      ' lower the one or raise the other.'
    )


def _check_losses(
  optim: train_options.Options, data: data_options.PipelineOptions
) -> None:
  if optim.softmax_weight > 0 and not data.group_candidates:
    raise errors.UsageError(
      f'optim.softmax_weight={optim.softmax_weight} needs'
      ' data.group_candidates=True: single targets have no other candidates'
      ' beside them.'
    )
  if data.in_batch_negatives > 0 and not optim.softmax_weight > 0:
    raise errors.UsageError(
      f'data.in_batch_negatives={data.in_batch_negatives} needs'
      ' optim.softmax_weight above 0: no other loss sees them.'
    )
  if not optim.pointwise_weight + optim.softmax_weight > 0:
    raise errors.UsageError(
      'optim.pointwise_weight=0 and optim.softmax_weight=0: nothing would be'
      ' learned; expected one of them above 0.'
    )


def _check_vectors(config: ml_collections.ConfigDict) -> None:
  try:
    content_vectors.check_roles(tuple(config.model.vectors_in))
  except ValueError as error:
    raise errors.UsageError(str(error)) from None
  if config.data.item_vectors is not None and config.data.min_item_count > 1:
    raise errors.UsageError(
      f'data.min_item_count={config.data.min_item_count} forgets which the rare'
      ' items are, so that these would have no vector of data.item_vectors;'
      ' leave it at 1: ids that training does not read are the unknown id'
      ' anyway.'
    )


def _get(config: ml_collections.ConfigDict, field: str) -> Any:
  value = config
  for name in field.split('.'):
    value = value[name]
  return value
