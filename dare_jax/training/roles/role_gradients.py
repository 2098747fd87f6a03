"""Gradients of shared tables by role: observed, balanced, or both.

The model runs on a copy of each shared table for each role, attention and
representation, which gives it two gradients; the table moves by their sum, so
both copies stay the same. This is how arXiv 2410.02604, section 3, measures
domination and conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

import jax

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import errors
from dare_jax import models
from dare_jax import tables as tables_lib
from dare_jax.embeddings import content_vectors
from dare_jax.training.roles import gradient_statistics as statistics_lib
from dare_jax.training.roles import role_balance


class RoleGradients:
  """Takes the gradients of the roles apart, and joins them again.

  Attributes:
    model: the ranker with a table for each role.
  """

  def __init__(
    self,
    model: models.Ranker,
    tables: tables_lib.TableSet,
    updater: tables_lib.TableUpdater,
    balance: bool,
    observe: bool,
  ) -> None:
    """Makes the ranker.

    Args:
      model: a ranker whose plan shares tables between the roles.
      tables: the tables that are trained.
      updater: the updater that moves the tables.
      balance: whether attention's gradients are made as long as
        representation's.
      observe: whether lengths and angles of the gradients are kept.

    Raises:
      UsageError: no table of its plan serves both roles; or no gradient of
        attention reaches one that would be observed.
    """
    field = 'train.observe_gradients' if observe else 'optim.balance_gradients'
    if content_vectors.TABLE in tables.specs:
      raise errors.UsageError(
        f'{field}=True is about tables of roles, and model.tune_vectors=True'
        ' trains one that is given; leave out one of the two.'
      )
    self.model = role_balance.by_role(model, field)
    if observe:
      _check_attention(model.config)
    self._plan = embeddings.PLANS[self.model.config.plan]
    self._specs, self._updater = tables.specs, updater
    self._balance = balance

  def copies(self, tables: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns each shared table once for each role."""
    return role_balance.copies(tables, self._plan)

  def join(
    self,
    grads: Mapping[str, jax.Array],
    tables: Mapping[str, jax.Array],
    rows: Mapping[str, jax.Array],
    seen: statistics_lib.Statistics | None,
  ) -> tuple[dict[str, jax.Array], Any, dict[str, jax.Array]]:
    """Returns the gradients of the tables, and what was seen of the roles.

    Args:
      grads: name -> gradient of each copy of a table, [rows, dim].
      tables: name -> table before it was copied, [rows, dim].
      rows: field -> int32 [u], the rows that the batch reads.
      seen: the statistics up to now; None: nothing is observed.

    Returns:
      Of each table one gradient; `seen` with this step; and the sums that
      this step adds to the log window.
    """
    sums: dict[str, jax.Array] = {}
    if seen is not None:
      for name in tables:
        pair = role_balance.pair(grads, name)
        fold = functools.partial(self._updater.fold, name, pair, rows)
        size = self._specs[name].rows
        seen, own = statistics_lib.add(seen, name, fold, size)
        sums |= own
    if self._balance:
      norms = lambda name, pair: self._updater.squared_norms(name, pair, rows)
      return role_balance.merge(grads, tables, norms), seen, sums
    pairs = {name: role_balance.pair(grads, name) for name in tables}
    return {name: a + r for name, (a, r) in pairs.items()}, seen, sums


def _check_attention(config: models.RankerConfig) -> None:
  weighs = aggregate.AGGREGATIONS[config.aggregation].uses_scores
  if not weighs and not config.aux_head:
    raise errors.UsageError(
      f'train.observe_gradients=True: model.aggregation={config.aggregation!r}'
      ' does not use scores, so that the role of attention has no gradient to'
      ' observe; leave it out, or choose another model.'
    )
