"""Model names are presets: defaults of options of `build`, nothing more."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import difflib
from typing import Any

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import layers
from dare_jax import search
from dare_jax.embeddings import content_vectors
from dare_jax.models import ranker
from dare_jax.models import ranker_config

# The models of arXiv 2410.02604, Table 1, and some more; what is not named
# keeps its default.
PRESETS: Mapping[str, Mapping[str, Any]] = {
  'dare': {'plan': 'decoupled'},
  # With two parts of docs/parts.md: all match terms, and the history's mean.
  'dare_match_mean': {
    'plan': 'decoupled',
    'further_dim': 4,
    'match_fields': ('all',),
    'history_mean': True,
  },
  # DIN (arXiv 1706.06978) with a search stage, and over the whole history.
  'din': {'plan': 'shared', 'scorer': 'network', 'use_time': False},
  'din_full': {
    'plan': 'shared',
    'scorer': 'network',
    'use_time': False,
    'search': 'all',
  },
  # TWIN (arXiv 2302.02352) and the paper's variants of it.
  'twin': {'plan': 'shared'},
  'twin_hard': {'plan': 'shared', 'search': 'category'},
  'twin_no_tr': {'plan': 'shared', 'target_aware': False},
  'twin_proj': {'plan': 'projected'},
  'twin_3e': {'plan': 'three'},
  'twin_4e': {'plan': 'four'},
  'twin_v2': {'plan': 'shared', 'search': 'clusters'},
  # SIM (arXiv 2006.05639): its soft search has a loss of its own.
  'sim_hard': {'plan': 'shared', 'search': 'category', 'aux_head': False},
  'sim_soft': {'plan': 'shared', 'search': 'projected'},
  # ETA (arXiv 2108.04468) and SDIM (arXiv 2205.10249): hashes.
  'eta': {'plan': 'shared', 'search': 'simhash'},
  'sdim': {
    'plan': 'shared',
    'search': 'all',
    'aggregation': 'buckets',
    'aux_head': False,
    'hash_bits': 48,
  },
}

_CHOICES: Mapping[str, Mapping[str, Any]] = {
  'plan': embeddings.PLANS,
  'scorer': search.SCORERS,
  'search': search.SEARCHES,
  'aggregation': aggregate.AGGREGATIONS,
  'projection_init': embeddings.KERNEL_INITS,
  'compute_dtype': dict.fromkeys(layers.COMPUTE_DTYPES),
}
_FIELDS = frozenset(
  field.name for field in dataclasses.fields(ranker_config.RankerConfig)
) | {'further_dim'}
_OWN_WIDTH = ('item', 'category', 'time', content_vectors.FIELD)


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
    attention_dims: field (`time` included) -> width of its attention vectors,
      where that is not `attention_dim`.
    representation_dims: field -> width of its representation vectors, likewise.
    context: field -> rows, for fields that only the head sees.
    context_dim: width of each context field.
    **overrides: fields of `RankerConfig`, and `further_dim`, the width of each
      further field in both roles; None keeps the preset's value, and so does an
      empty `match_fields`, which may be ('all',) or ('none',), too.

  Raises:
    ValueError: an unknown preset, choice, field or option; a bad size.
  """
  preset = dict(_choose('model.name', name, PRESETS))
  for option, value in overrides.items():
    if option not in _FIELDS:
      raise ValueError(_unknown('model option', option, _FIELDS))
    if option in _CHOICES and value is not None:
      _choose(f'model.{option}', value, _CHOICES[option])
    if value is not None and (option, value) != ('match_fields', ()):
      preset[option] = value
  fields = dict(vocab_sizes)
  exact = preset.get('exact_positions', 200)
  fields['time'] = embeddings.num_position_ids(exact)
  further = preset.pop('further_dim', None)
  _check_fields(fields, (attention_dims, representation_dims))
  widths = {
    'attention': _widths(fields, attention_dim, further, attention_dims),
    'representation': _widths(
      fields, representation_dim, further, representation_dims
    ),
  }
  *content, time = _features(fields, widths, preset)
  preset['match_fields'] = _match_fields(preset, content)
  config = ranker_config.RankerConfig(
    content=tuple(content),
    time=time,
    context=tuple(
      ranker_config.ContextFeature(field, rows, context_dim)
      for field, rows in (context or {}).items()
    ),
    **preset,
  )
  _check(config)
  return ranker.Ranker(config)


def _features(
  fields: Mapping[str, int],
  widths: Mapping[str, Mapping[str, int]],
  preset: Mapping[str, Any],
) -> list[embeddings.Feature]:
  vectors = preset.get('vectors')
  sets = {shape.field: shape for shape in preset.get('sets', ())}
  found: list[embeddings.Feature] = []
  for field, rows in fields.items():
    own = {f'{role}_dim': width[field] for role, width in widths.items()}
    if vectors is not None and field == content_vectors.FIELD:
      found.append(_vector_feature(rows, vectors, own))
    elif field in sets:
      shape = sets[field]
      found.append(
        embeddings.SetFeature(
          field,
          rows,
          **own,
          num_members=shape.num_members,
          widest=shape.widest,
        )
      )
    else:
      found.append(embeddings.Feature(field, rows, **own))
  return found


def _vector_feature(
  rows: int, vectors: embeddings.GivenVectors, widths: Mapping[str, int]
) -> embeddings.VectorFeature:
  own = dict.fromkeys(widths, 0)
  own |= {f'{role}_dim': widths[f'{role}_dim'] for role in vectors.roles}
  return embeddings.VectorFeature(
    content_vectors.FIELD,
    rows,
    **own,
    width=vectors.width,
    tuned=vectors.tuned,
  )


def _match_fields(
  preset: Mapping[str, Any], content: list[embeddings.Feature]
) -> tuple[str, ...]:
  """Returns the match fields of a preset, all or none of them by name."""
  asked = tuple(preset.get('match_fields', ()))
  if asked == ('none',):
    return ()
  if asked != ('all',):
    return asked
  # Vectors are given to each item: they match where the item does.
  return tuple(f.name for f in content if f.name != content_vectors.FIELD)


_POSITIVE = (
  'top_k',
  'exact_positions',
  'hash_bits',
  'search_dim',
  'interest_heads',
)


def _widths(
  fields: Mapping[str, int],
  default: int,
  further: int | None,
  own: Mapping[str, int | None] | None,
) -> dict[str, int]:
  """Returns the width of each field in a role."""
  widths = dict.fromkeys(fields, default)
  if further is not None:
    widths |= {f: further for f in fields if f not in _OWN_WIDTH}
  return widths | {f: n for f, n in (own or {}).items() if n is not None}


def _check_fields(fields: Mapping[str, int], special: Any) -> None:
  for required in ('item', 'category'):
    if required not in fields:
      raise ValueError(
        f'vocab_sizes lacks {required!r}; it has {list(fields)}.'
      )
  for role, own in zip(('attention', 'representation'), special, strict=True):
    for field, width in (own or {}).items():
      if width is not None and field not in fields:
        raise ValueError(_unknown(f'field in {role}_dims', field, fields))


def _check(config: ranker_config.RankerConfig) -> None:
  for option in _POSITIVE:
    value = getattr(config, option)
    if value < 1:
      raise ValueError(f'model.{option}={value}: expected 1 or more.')
  if config.hash_width < 1 or config.hash_bits % config.hash_width:
    if config.aggregation == 'buckets':
      raise ValueError(
        f'model.hash_width={config.hash_width} must divide'
        f' model.hash_bits={config.hash_bits}.'
      )
  weighs = aggregate.AGGREGATIONS[config.aggregation].uses_scores
  names = [feature.name for feature in config.content]
  for field in config.match_fields:
    if field not in names:
      raise ValueError(_unknown('field in model.match_fields', field, names))
  _check_real_time(config.real_time)
  if not weighs and any(not f.representation_dim for f in config.content):
    raise ValueError(
      f'model.aggregation={config.aggregation} reads no attention vectors;'
      ' add representation to model.vectors_in.'
    )
  if len(set(config.match_fields)) < len(config.match_fields):
    raise ValueError(
      f'model.match_fields={config.match_fields}: expected each field once.'
    )
  plan = embeddings.PLANS[config.plan]
  for feature in (*config.content, config.time):
    plan.check(feature)
  if config.interest_heads > 1 and not weighs:
    raise ValueError(
      f'model.interest_heads={config.interest_heads}: model.aggregation='
      f'{config.aggregation!r} does not use scores, which the heads weigh'
      ' behaviors by; expected 1.'
    )
  if config.aux_head:
    return
  if search.SEARCHES[config.search].learns_by_aux:
    raise ValueError(
      f'model.search={config.search!r} learns from the auxiliary loss alone;'
      ' set model.aux_head=True.'
    )
  if not weighs and not plan.shares_roles:
    raise ValueError(
      f'model.aggregation={config.aggregation!r} does not use scores, so no'
      f' gradient would reach the attention tables of plan {plan.name!r};'
      ' set model.aux_head=True or choose a plan that shares them (shared).'
    )


def _check_real_time(parts: tuple[str, ...]) -> None:
  for part in parts:
    if part not in ranker_config.REAL_TIME:
      known = ranker_config.REAL_TIME
      raise ValueError(_unknown('part of model.real_time', part, known))
  if len(set(parts)) < len(parts):
    raise ValueError(f'model.real_time={parts}: expected each part once.')


def _choose(what: str, value: str, known: Mapping[str, Any]) -> Any:
  if value not in known:
    raise ValueError(_unknown(what, value, known))
  return known[value]


def _unknown(what: str, value: str, known: Any) -> str:
  close = difflib.get_close_matches(str(value), list(known), n=1)
  hint = f'; did you mean {close[0]!r}?' if close else '.'
  return f'{what} {value!r}: expected one of {", ".join(sorted(known))}{hint}'
