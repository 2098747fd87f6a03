"""How a model is trained: the `optim` section of a config, checked."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import re
from typing import Any
from typing import NamedTuple

from dare_jax import errors
from dare_jax import tables as tables_lib

_CHOICES: Mapping[str, tuple[str | None, ...]] = {
  'tables': tuple(tables_lib.OPTIMIZERS),
  'schedule': ('constant', 'linear'),
  'table_dtype': tables_lib.DTYPES,
  'table_layout': (None, *tables_lib.LAYOUTS),
  'unique_rows': ('host', 'device'),
}


class TableRule(NamedTuple):
  """Rate and decay of the tables whose whole name a pattern matches."""

  pattern: str
  learning_rate: float
  weight_decay: float


@dataclasses.dataclass(frozen=True)
class Options:
  """How a model is trained; the fields are explained in `configs/base.py`."""

  learning_rate: float
  schedule: str
  tables: str
  table_learning_rate: float | None
  table_weight_decay: float
  by_table: tuple[Any, ...]
  row_sparse_from: int
  unique_rows: str
  table_dtype: str
  table_layout: str | None
  aux_weight: float
  pointwise_weight: float
  softmax_weight: float
  l2: float
  balance_gradients: bool
  l2_on_norms: bool
  loss_epsilon: float
  published_init: bool

  def __post_init__(self) -> None:
    """Raises UsageError for a choice that there is not."""
    for field, choices in _CHOICES.items():
      value = getattr(self, field)
      if value not in choices:
        raise errors.UsageError(
          f'optim.{field}={value!r}: expected one of'
          f' {", ".join(map(str, choices))}.'
        )
    is_row_sparse = tables_lib.OPTIMIZERS[self.tables](0.0, 0.0).row_sparse
    if self.table_dtype != 'float32' and not is_row_sparse:
      raise errors.UsageError(
        f'optim.table_dtype={self.table_dtype} is for row-sparse optimizers,'
        f' not for optim.tables={self.tables}.'
      )

  def table_rules(self, names: list[str]) -> list[TableRule]:
    """Returns the rules of `by_table`, the first that matches counts.

    Args:
      names: names of the tables, such as `item_attention`.

    Raises:
      UsageError: a malformed rule, or a pattern that no table has.
    """
    return [_rule(given, names) for given in self.by_table]


def of_section(section: Any) -> Options:
  """Returns the options of a config's optim section.

  Raises:
    UsageError: a choice that there is not.
  """
  options = dict(section)
  # A saved config has lists.
  options['by_table'] = _tuples(options['by_table'])
  return Options(**options)


def _tuples(value: Any) -> Any:
  """Returns lists as tuples, those in them as well."""
  if isinstance(value, list | tuple):
    return tuple(_tuples(one) for one in value)
  return value


def _rule(given: Any, names: list[str]) -> TableRule:
  try:
    pattern, rate, decay = given
    matches = [name for name in names if re.fullmatch(pattern, name)]
    found = TableRule(pattern, float(rate), float(decay))
    if not min(found.learning_rate, found.weight_decay) >= 0:
      raise ValueError
  except (TypeError, ValueError, re.error):
    raise errors.UsageError(
      f'optim.by_table has {given!r}: expected (pattern of table names,'
      " learning rate, weight decay), as in (('item_.*', 0.01, 0.0),); no"
      ' number below 0.'
    ) from None
  if not matches:
    raise errors.UsageError(
      f'optim.by_table: no table is named {pattern!r}; there are'
      f' {", ".join(names)}.'
    )
  return found
