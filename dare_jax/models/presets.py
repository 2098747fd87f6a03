"""Model names are presets: defaults of `RankerConfig` fields, nothing more."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import difflib
from typing import Any

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import search
from dare_jax.models import ranker

# arXiv 2410.02604, Table 1; what is not named keeps RankerConfig's default.
PRESETS: Mapping[str, Mapping[str, Any]] = {
  'dare': {'plan': 'decoupled'},
  'twin': {'plan': 'shared'},
}

_CHOICES: Mapping[str, Mapping[str, Any]] = {
  'plan': embeddings.PLANS,
  'scorer': search.SCORERS,
  'search': search.SEARCHES,
  'aggregation': aggregate.AGGREGATIONS,
}
_FIELDS = frozenset(
  field.name for field in dataclasses.fields(ranker.RankerConfig)
)


def build(
  name: str,
  *,
  vocab_sizes: Mapping[str, int],
  attention_dim: int = 16,
  representation_dim: int = 16,
  attention_dims: Mapping[str, int | None] | None = None,
  representation_dims: Mapping[str, int | None] | None = None,
  context: Mapping[str, int] | None = None,
  context_dim: int = 8,
  **overrides: Any,
) -> ranker.Ranker:
  """Returns the ranker of a preset.

  >>> model = build('dare', vocab_sizes={'item': 100, 'category': 10},
  ...               attention_dim=8)
  >>> [feature.attention_dim for feature in model.config.content]
  [8, 8]

  Args:
    name: a preset, for instance 'dare' or 'twin'.
    vocab_sizes: field -> table rows, padding row 0 and unknown row 1 included;
      `item` and `category` come first, further fields follow.
    attention_dim: width of each field's attention vectors.
    representation_dim: width of each field's representation vectors.
    attention_dims: field (`time` included) -> width, where it differs.
    representation_dims: the same for representation.
    context: field -> rows, for fields that only the head sees.
    context_dim: width of each context field.
    **overrides: fields of `RankerConfig`; None keeps the preset's value.

  Raises:
    ValueError: an unknown preset, choice, field or option; a bad size.
  """
  preset = dict(_choose('model.name', name, PRESETS))
  for option, value in overrides.items():
    if option not in _FIELDS:
      raise ValueError(_unknown('model option', option, _FIELDS))
    if option in _CHOICES and value is not None:
      _choose(f'model.{option}', value, _CHOICES[option])
    if value is not None or option == 'aux_hidden':
      preset[option] = value
  fields = dict(vocab_sizes)
  exact = preset.get('exact_positions', 200)
  fields['time'] = embeddings.num_position_ids(exact)
  dims = {
    'attention': (attention_dim, attention_dims),
    'representation': (representation_dim, representation_dims),
  }
  _check_fields(fields, dims)
  *content, time = [
    embeddings.Feature(
      field,
      rows,
      **{f'{role}_dim': _dim(field, *choice) for role, choice in dims.items()},
    )
    for field, rows in fields.items()
  ]
  config = ranker.RankerConfig(
    content=tuple(content),
    time=time,
    context=tuple(
      ranker.ContextFeature(field, rows, context_dim)
      for field, rows in (context or {}).items()
    ),
    **preset,
  )
  _check(config)
  return ranker.Ranker(config)


def _dim(
  field: str, default: int, special: Mapping[str, int | None] | None
) -> int:
  value = (special or {}).get(field)
  return default if value is None else value


def _check_fields(fields: Mapping[str, int], dims: Mapping[str, Any]) -> None:
  for required in ('item', 'category'):
    if required not in fields:
      raise ValueError(
        f'vocab_sizes lacks {required!r}; it has {list(fields)}.'
      )
  for role, (_, special) in dims.items():
    for field in special or {}:
      if field not in fields:
        raise ValueError(_unknown(f'field in {role}_dims', field, fields))


def _check(config: ranker.RankerConfig) -> None:
  if config.top_k < 1:
    raise ValueError(f'model.top_k={config.top_k}: expected 1 or more.')
  if config.exact_positions < 1:
    raise ValueError(
      f'model.exact_positions={config.exact_positions}: expected 1 or more.'
    )
  plan = embeddings.PLANS[config.plan]
  for feature in (*config.content, config.time):
    plan.check(feature)


def _choose(what: str, value: str, known: Mapping[str, Any]) -> Any:
  if value not in known:
    raise ValueError(_unknown(what, value, known))
  return known[value]


def _unknown(what: str, value: str, known: Any) -> str:
  close = difflib.get_close_matches(str(value), list(known), n=1)
  hint = f'; did you mean {close[0]!r}?' if close else '.'
  return f'{what} {value!r}: expected one of {", ".join(sorted(known))}{hint}'
