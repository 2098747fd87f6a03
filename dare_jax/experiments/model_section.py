"""The section `model` of a config, as the model that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_collections

from dare_jax import embeddings
from dare_jax import errors
from dare_jax import models
from dare_jax.embeddings import content_vectors
from dare_jax.store import set_members


def check(config: ml_collections.ConfigDict) -> None:
  """Checks the model section for a log with the fields that the config names.

  Raises:
    UsageError: a field of it that no log allows.
  """
  data = config.data
  fields = ['item', 'category', *data.fields, *data.columns.fields]
  width = None
  if data.item_vectors is not None:
    fields.append(content_vectors.FIELD)
    width = 1
  build(config, dict.fromkeys(fields, 2), vector_width=width)


def build(
  config: ml_collections.ConfigDict,
  vocab_sizes: Mapping[str, int],
  context: Mapping[str, int] | None = None,
  num_clusters: int = 1,
  vector_width: int | None = None,
  sets: Mapping[str, set_members.SetMembers] | None = None,
  **instead: Any,
) -> models.Ranker:
  """Returns the model of the config's model section.

  Args:
    config: the config of a run.
    vocab_sizes: field -> table rows.
    context: field -> table rows, of the fields that only the head sees.
    num_clusters: upper bound of the number of clusters of one user.
    vector_width: width of the vectors of the field `item_vector`; None: the log
      has no such field.
    sets: field -> members, of the fields whose values are sets.
    **instead: fields of the section, with values to take instead of its own.

  Raises:
    UsageError: an unknown preset, choice or field; a bad size.
  """
  options = config.model.to_dict() | instead
  name = options.pop('name')
  for field in ('cluster_size', 'cluster_every_steps'):
    options.pop(field)
  roles, tuned = options.pop('vectors_in'), options.pop('tune_vectors')
  vectors = None
  if vector_width is not None:
    vectors = embeddings.GivenVectors(vector_width, tuple(roles), tuned)
  if options.pop('published_search'):
    options = models.published_options(name, options)
  try:
    return models.build(
      name,
      vocab_sizes=vocab_sizes,
      context=context,
      num_clusters=num_clusters,
      vectors=vectors,
      sets=tuple(
        embeddings.SetShape(field, own.num_members, own.widest)
        for field, own in (sets or {}).items()
      ),
      **options,
    )
  except ValueError as error:
    raise errors.UsageError(str(error)) from None
