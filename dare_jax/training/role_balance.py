"""Gradients of attention and representation at equal length.

Where one table serves both roles, the representation's gradient outweighs the
attention's. Rescaling is a remedy that arXiv 2410.02604, section 3, tries
before decoupling. For that, the model runs on a copy of each shared table for
each role, which gives it two gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp

from dare_jax import embeddings
from dare_jax import errors
from dare_jax import models


def by_role(model: models.Ranker) -> models.Ranker:
  """Returns the same model with a table for each role.

  Raises:
    UsageError: no table of its plan serves both roles.
  """
  plan = embeddings.PLANS[model.config.plan].by_role
  if plan is None:
    raise errors.UsageError(
      'optim.balance_gradients=True is for plans with a table that serves both'
      f' roles; model.plan={model.config.plan!r} has none.'
    )
  return models.Ranker(dataclasses.replace(model.config, plan=plan))


def copies(
  tables: Mapping[str, jax.Array], plan: embeddings.Plan
) -> dict[str, jax.Array]:
  """Returns each shared table once for each role.

  Args:
    tables: by name.
    plan: the name of the plan of the model that `by_role` made.
  """
  return {
    f'{name.removesuffix("_shared")}_{suffix}': table
    for name, table in tables.items()
    for suffix in plan.suffixes
  }


def merge(
  grads: Mapping[str, jax.Array],
  tables: Iterable[str],
  squared_norms: Callable[[str, list[jax.Array]], list[jax.Array]],
) -> dict[str, jax.Array]:
  """Returns the sum of the roles' gradients of each table at equal length.

  The attention gradient is rescaled to the norm of the representation one.

  Args:
    grads: of the copies.
    tables: names of those that were copied.
    squared_norms: returns those of gradients of a table, of the whole batch.
  """
  merged = {}
  for name in tables:
    field = name.removesuffix('_shared')
    pair = [
      grads[f'{field}_{role}'] for role in ('attention', 'representation')
    ]
    norm, wanted = map(jnp.sqrt, squared_norms(name, pair))
    scale = wanted / jnp.where(norm > 0, norm, 1.0)
    merged[name] = pair[1] + scale * pair[0]
  return merged
