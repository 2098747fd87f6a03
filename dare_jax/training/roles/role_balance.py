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


def by_role(model: models.Ranker, field: str) -> models.Ranker:
  """Returns the same model with a table for each role.

  Args:
    model: the ranker whose plan shares tables.
    field: name of the config field that asks for it.

  Raises:
    UsageError: no table of its plan serves both roles.
  """
  plan = embeddings.PLANS[model.config.plan].by_role
  if plan is None:
    raise errors.UsageError(
      f'{field}=True is for plans with a table that serves both roles;'
      f' model.plan={model.config.plan!r} has none.'
    )
  return models.Ranker(dataclasses.replace(model.config, plan=plan))


def copies(
  tables: Mapping[str, jax.Array], plan: embeddings.Plan
) -> dict[str, jax.Array]:
  """Returns each shared table once for each role.

  Args:
    tables: name -> table, [rows, dim].
    plan: the plan of the model that `by_role` made.
  """
  return {
    f'{name.removesuffix("_shared")}_{suffix}': table
    for name, table in tables.items()
    for suffix in plan.suffixes
  }


def pair(grads: Mapping[str, jax.Array], name: str) -> list[jax.Array]:
  """Returns a table's gradients of attention and of representation.

  Args:
    grads: name -> gradient of each copy of a table, [rows, dim].
    name: the name of the table that was copied.
  """
  field = name.removesuffix('_shared')
  return [grads[f'{field}_{role}'] for role in embeddings.ROLES]


def merge(
  grads: Mapping[str, jax.Array],
  tables: Iterable[str],
  squared_norms: Callable[[str, list[jax.Array]], list[jax.Array]],
) -> dict[str, jax.Array]:
  """Returns the sum of the roles' gradients of each table at equal length.

  The attention gradient is rescaled to the norm of the representation one.

  Args:
    grads: name -> gradient of each copy of a table, [rows, dim].
    tables: the names of the tables that were copied.
    squared_norms: returns, for a table and its gradients [rows, dim], the
      squared norm of each over the whole batch.
  """
  merged = {}
  for name in tables:
    of_roles = pair(grads, name)
    norm, wanted = map(jnp.sqrt, squared_norms(name, of_roles))
    scale = wanted / jnp.where(norm > 0, norm, 1.0)
    merged[name] = of_roles[1] + scale * of_roles[0]
  return merged
