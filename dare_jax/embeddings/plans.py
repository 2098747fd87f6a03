"""Features, and the plans that say which table each use of them reads.

A feature is read in two roles (attention: to search; representation: to
predict) and on two sides (target, behavior). A plan maps the four uses to
tables; that one table serves several uses, or does not, is all that sets the
models of DARE's Table 1 apart on this axis (arXiv 2410.02604, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import types
from typing import Any

from dare_jax.embeddings import projections

ROLES = ('attention', 'representation')
SIDES = ('target', 'behavior')
Use = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Feature:
  """A categorical field and the width of its vectors in each role.

  Attributes:
    name: the field; `item`, `category`, a further field, or `time`.
    vocab_size: rows of a table made by `init`; row 0 is padding. A model takes
      tables with any number of rows later.
    attention_dim: width of its attention vectors.
    representation_dim: width of its representation vectors.
  """

  name: str
  vocab_size: int
  attention_dim: int
  representation_dim: int

  def __post_init__(self) -> None:
    for field in ('vocab_size', 'attention_dim', 'representation_dim'):
      if getattr(self, field) < 1:
        raise ValueError(
          f'{self.name}: {field}={getattr(self, field)}; expected 1 or more.'
        )

  def dim(self, role: str) -> int:
    if role == 'attention':
      return self.attention_dim
    return self.representation_dim

  def tables(self, plan: Plan) -> dict[str, str]:
    """Returns name -> suffix of the tables of this feature under a plan."""
    return {f'{self.name}_{suffix}': suffix for suffix in plan.suffixes}

  def table_dim(self, plan: Plan, suffix: str) -> int:
    """Returns the width of one of its tables."""
    return self.dim(plan.role_of(suffix))

  @property
  def trained_rows(self) -> int:
    """Rows of its tables in training."""
    return self.vocab_size

  @property
  def is_given(self) -> bool:
    """Whether its vectors are given; see `content_vectors`."""
    return False


@dataclasses.dataclass(frozen=True)
class Plan:
  """Which table each (role, side) reads.

  Attributes:
    name: the plan's name in configs.
    table_of: (role, side) -> suffix of the table's name.
    projection: the maps that follow the lookup, if any.
    by_role: name of the plan with a table of its own for each role and else
      the same uses; None where no table serves both roles.
  """

  name: str
  table_of: Mapping[Use, str]
  projection: projections.Projection | None = None
  by_role: str | None = None

  @property
  def shares_roles(self) -> bool:
    """Whether a table serves attention and representation."""
    searching = {self.table_of['attention', side] for side in SIDES}
    return any(
      self.table_of['representation', side] in searching for side in SIDES
    )

  @property
  def suffixes(self) -> tuple[str, ...]:
    """Suffixes of all tables, each once."""
    return tuple(dict.fromkeys(self.table_of.values()))

  def role_of(self, suffix: str) -> str:
    """Returns the role whose width a table has.

    A table that serves both roles counts as a representation table.
    """
    roles = {
      role for (role, _), name in self.table_of.items() if name == suffix
    }
    return 'representation' if 'representation' in roles else 'attention'

  def check(self, feature: Feature) -> None:
    """Raises ValueError if a feature's widths contradict the sharing."""
    if feature.is_given:
      return
    if (
      self.shares_roles and feature.attention_dim != feature.representation_dim
    ):
      raise ValueError(
        f'plan {self.name!r} reads one table in both roles, but'
        f' {feature.name} has attention_dim={feature.attention_dim} and'
        f' representation_dim={feature.representation_dim}; make them equal'
        ' or choose a plan with tables of their own (decoupled).'
      )


def _plan(
  name: str,
  attention_target: str,
  attention_behavior: str,
  representation_target: str,
  representation_behavior: str,
  projection: projections.Projection | None = None,
  by_role: str | None = None,
) -> Plan:
  table_of = {
    ('attention', 'target'): attention_target,
    ('attention', 'behavior'): attention_behavior,
    ('representation', 'target'): representation_target,
    ('representation', 'behavior'): representation_behavior,
  }
  return Plan(name, types.MappingProxyType(table_of), projection, by_role)


def _projected(name: str, **shape: Any) -> tuple[Plan, Plan]:
  """A shared table with maps, and the same with a table a role."""
  projection = projections.Projection(**shape)
  split = f'{name}_by_role'
  return (
    _plan(name, _S, _S, _S, _S, projection, split),
    _plan(split, _A, _A, _R, _R, projection),
  )


_S = 'shared'
_A, _R = ROLES
_AT, _AB = (f'{_A}_{side}' for side in SIDES)
_RT, _RB = (f'{_R}_{side}' for side in SIDES)
PLANS: Mapping[str, Plan] = {
  plan.name: plan
  for plan in (
    _plan('shared', _S, _S, _S, _S, by_role='decoupled'),
    _plan('decoupled', _A, _A, _R, _R),
    _plan('three', _AT, _AB, _R, _R),
    _plan('four', _AT, _AB, _RT, _RB),
    *_projected('projected'),
    *_projected('projected_tied', tied=True),
    *_projected('projected_mlp', hidden=1),
    *_projected('projected_concat', per_field=False),
    *_projected('projected_concat_tied', per_field=False, tied=True),
  )
}
