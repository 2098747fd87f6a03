"""Which older table each table of a new model starts from, and how."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dare_jax import embeddings
from dare_jax import errors
from dare_jax import models
from dare_jax.warm_start import narrowing

# Fields of a model on which the shape of its heads depends.
_OF_HEADS = ('match_fields', 'real_time', 'history_mean', 'interest_heads')


def table_names(config: models.RankerConfig) -> dict[str, tuple[str, str]]:
  """Returns field and suffix of each table, by its name."""
  return {
    name: (feature.name, suffix)
    for feature in config.features
    for name, suffix in feature.tables(embeddings.PLANS[config.plan]).items()
  }


def sources(old_plan: str, new_plan: str) -> dict[str, str]:
  """Returns the old table, by suffix, that each new one starts as.

  >>> sources('shared', 'decoupled')
  {'attention': 'shared', 'representation': 'shared'}

  A table starts as the one that was read for the same uses, so that what the
  model computes does not change.

  Raises:
    UsageError: the uses of a new table read several.
  """
  old, new = (embeddings.PLANS[name] for name in (old_plan, new_plan))
  found: dict[str, set[str]] = {suffix: set() for suffix in new.suffixes}
  for use, suffix in new.table_of.items():
    found[suffix].add(old.table_of[use])
  for suffix, tables in found.items():
    if len(tables) > 1:
      raise errors.UsageError(
        f'train.init_from: a model with the plan {new_plan} cannot start from'
        f' one with the plan {old_plan}: its {suffix} table would have to be'
        f' {" and ".join(sorted(tables))} at once. Use the plan {old_plan}, or'
        ' one with a table for each.'
      )
  return {suffix: tables.pop() for suffix, tables in found.items()}


def is_narrower(old: models.RankerConfig, new: models.RankerConfig) -> bool:
  """Whether attention vectors of a field are narrower than they were."""
  return any(
    a.attention_dim != b.attention_dim
    for a, b in zip(old.features, new.features, strict=True)
  )


def check_widths(old: models.RankerConfig, new: models.RankerConfig) -> None:
  """Checks that vectors of the new model follow from those of the old.

  Raises:
    UsageError: they do not.
  """
  if old.use_time != new.use_time:
    raise errors.UsageError(
      f'model.use_time={new.use_time}, but the run of train.init_from has'
      f' {old.use_time}.'
    )
  if old.use_time and old.exact_positions != new.exact_positions:
    raise errors.UsageError(
      f'model.exact_positions={new.exact_positions}, but the run of'
      f' train.init_from has {old.exact_positions}, so that its time vectors'
      ' are of other positions.'
    )
  for option in _OF_HEADS:
    before, now = getattr(old, option), getattr(new, option)
    if before != now:
      raise errors.UsageError(
        f'model.{option}={now}, but the run of train.init_from has {before}:'
        ' the heads depend on it.'
      )
  for a, b in zip(old.features, new.features, strict=True):
    if a.representation_dim != b.representation_dim:
      raise errors.UsageError(
        f'{b.name} has representation vectors {b.representation_dim} wide, but'
        f' the run of train.init_from {a.representation_dim}; set'
        ' model.representation_dim as there: the heads depend on it.'
      )
    if a.attention_dim < b.attention_dim:
      raise errors.UsageError(
        f'{b.name} has attention vectors {b.attention_dim} wide, but the run'
        f' of train.init_from only {a.attention_dim}; set model.attention_dim'
        ' to that, or to less.'
      )
    widths = [getattr(feature, 'width', None) for feature in (a, b)]
    if widths[0] != widths[1]:
      raise errors.UsageError(
        f'data.item_vectors are {widths[1]} wide, but those of the run of'
        f' train.init_from {widths[0]}; they must be of the same model.'
      )
  if is_narrower(old, new) and any(f.is_given for f in new.features):
    raise errors.UsageError(
      'train.init_from does not make attention vectors narrower where there are'
      ' data.item_vectors; set model.attention_dim as in that run.'
    )
  if is_narrower(old, new) and (old.scorer, new.scorer) != ('dot', 'dot'):
    raise errors.UsageError(
      'train.init_from makes attention vectors narrower only where scores are'
      f' inner products: model.scorer=dot, not {new.scorer}; set'
      ' model.attention_dim as in that run.'
    )


def maps(
  old: models.RankerConfig,
  new: models.RankerConfig,
  grams: Mapping[str, np.ndarray],
  origin: np.ndarray | None,
) -> dict[str, np.ndarray]:
  """Returns the map from old to new vectors of each new attention table.

  Args:
    old: the model with the wide vectors.
    new: the model with the narrow vectors.
    grams: old attention table -> float64 [d, d], `narrowing.gram` of its rows.
    origin: [d], the target's time vector; None: the model reads no time.
  """
  suffixes = [
    [
      embeddings.PLANS[config.plan].table_of['attention', side]
      for side in ('target', 'behavior')
    ]
    for config in (old, new)
  ]
  content = narrowing.rescale(
    *(sum(f.attention_dim for f in config.content) for config in (old, new))
  )
  made = {}
  for wide, narrow in zip(old.features, new.features, strict=True):
    width = narrow.attention_dim
    targets, behaviors = (grams[f'{wide.name}_{own}'] for own in suffixes[0])
    factor = content
    if wide.name == old.time.name:
      factor = narrowing.rescale(wide.attention_dim, width)
    if width == wide.attention_dim:
      found = np.eye(width), np.eye(width)
    elif wide.name == old.time.name:
      assert origin is not None
      found = (narrowing.time_map(origin, behaviors, width),) * 2
    else:
      found = narrowing.maps(targets, behaviors, width)
    for suffix, matrix in zip(suffixes[1], found, strict=True):
      made[f'{narrow.name}_{suffix}'] = factor * matrix
  return made
