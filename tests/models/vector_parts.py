"""The vectors of a plan, slow and obvious, for `tests.models.reference`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.models import reference_parts

_A = 'attention'


class Vectors:
  """The tables and maps of one model."""

  def __init__(self, config: Any, tables: Any, params: Any) -> None:
    self.config = config
    self.tables = tables
    self.params = params.get('encoder', {})

  def vector(self, field: str, role: str, side: str, index: int) -> np.ndarray:
    suffix = reference_parts.TABLES[self.config.plan][role, side]
    row = self.tables[f'{field}_{suffix}'][index]
    plan = self.config.plan.removesuffix('_by_role')
    if not plan.startswith('projected') or 'concat' in plan:
      return row
    use = role if plan.endswith('tied') else f'{role}_{side}'
    layers = self.params[f'projection_{field}_{use}']
    row = row @ layers['Dense_0']['kernel']
    if 'mlp' in plan:
      row = np.maximum(row, 0) @ layers['Dense_1']['kernel']
    return row

  def read(
    self, role: str, side: str, ids: Mapping[str, np.ndarray], where: Any
  ) -> np.ndarray:
    """The fields' vectors, before any joint map."""
    return np.concatenate(
      [
        self.vector(feature.name, role, side, ids[feature.name][where])
        for feature in self.config.content
      ]
    )

  def joint(self, role: str, side: str) -> Any:
    """The kernel and bias of the plan's joint map, if it has one."""
    plan = self.config.plan.removesuffix('_by_role')
    if 'concat' not in plan:
      return None
    use = role if plan.endswith('tied') else f'{role}_{side}'
    return self.params[f'joint_projection_{use}']

  def content(
    self, role: str, side: str, ids: Mapping[str, np.ndarray], where: Any
  ) -> np.ndarray:
    """What codes are of: a joint map's bias is time's, where time is there.

    In attention the parts of a vector are scaled as scores scale them.
    """
    content, joint = self.read(role, side, ids, where), self.joint(role, side)
    if joint is None:
      return content
    mapped = content @ joint['kernel'][: len(content)]
    if not self.config.use_time:
      return mapped + joint['bias']
    width, num_content = len(mapped), len(content)
    if role == _A:
      mapped[:num_content] *= (width / num_content) ** 0.25
      mapped[num_content:] *= (width / (width - num_content)) ** 0.25
    return mapped

  def whole(
    self,
    role: str,
    side: str,
    ids: Mapping[str, np.ndarray],
    where: Any,
    distance: int,
  ) -> tuple[np.ndarray, np.ndarray]:
    """A whole vector's content and time parts, after any joint map."""
    if not self.config.use_time:
      return self.content(role, side, ids, where), np.zeros(0)
    content, joint = self.read(role, side, ids, where), self.joint(role, side)
    index = reference_parts.time_id(distance, self.config.exact_positions)
    time = self.vector('time', role, side, index)
    if joint is not None:
      both = np.concatenate([content, time]) @ joint['kernel'] + joint['bias']
      content, time = both[: len(content)], both[len(content) :]
    return content, time

  def value_width(self) -> int:
    dims = [f.representation_dim for f in self.config.content]
    has_time = self.config.use_time or 'gap' in self.config.real_time
    return sum(dims) + has_time * self.config.time.representation_dim
