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


@dataclasses.dataclass(frozen=True)
class Plan:
  """Which table each (role, side) reads.

  Attributes:
    name: the plan's name in configs.
    table_of: (role, side) -> suffix of the table's name.
    projected: whether a linear map of each use's own follows the lookup.
  """

  name: str
  table_of: Mapping[Use, str]
  projected: bool = False

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
    shares = (
      self.table_of['attention', 'target']
      == (self.table_of['representation', 'target'])
    )
    if shares and feature.attention_dim != feature.representation_dim:
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
  projected: bool = False,
) -> Plan:
  table_of = {
    ('attention', 'target'): attention_target,
    ('attention', 'behavior'): attention_behavior,
    ('representation', 'target'): representation_target,
    ('representation', 'behavior'): representation_behavior,
  }
  return Plan(name, types.MappingProxyType(table_of), projected)


_A, _R = ROLES
PLANS: Mapping[str, Plan] = {
  plan.name: plan
  for plan in (
    _plan('shared', 'shared', 'shared', 'shared', 'shared'),
    _plan('decoupled', _A, _A, _R, _R),
    _plan('three', f'{_A}_target', f'{_A}_behavior', _R, _R),
    _plan(
      'four',
      f'{_A}_target',
      f'{_A}_behavior',
      f'{_R}_target',
      f'{_R}_behavior',
    ),
    _plan('projected', 'shared', 'shared', 'shared', 'shared', projected=True),
  )
}
