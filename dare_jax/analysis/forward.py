"""What a trained model does with rows: what it finds, and how it scores.

Rankings come in two kinds. `found` is what the model's own search keeps, the
one it scores highest first. `by_category` ranks by the category and the
position of a behavior alone, as the published scripts do.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import embeddings
from dare_jax import models
from dare_jax import search as searches
from dare_jax import trained
from dare_jax import types
from dare_jax.evaluation import found
from dare_jax.models import head
from dare_jax.topk import selection

Arrays = dict[str, np.ndarray]


def rankings(
  run: trained.Trained,
  batches: Iterable[types.Batch],
  keep: int,
) -> Arrays:
  """Returns the positions of the behaviors that each target finds.

  Args:
    run: the run whose model searches.
    batches: batches whose rows have one moment each.
    keep: length of the lists.

  Returns:
    'found' and 'by_category', int32 [n, up to keep], best first; position 1 is
    the most recent behavior, 0 stands where nothing more was kept. Rows are
    the real targets.
  """
  apply = jax.jit(functools.partial(run.model.apply, method=_rankings(keep)))
  return _collect(apply, run, batches)


def logits(run: trained.Trained, batches: Iterable[types.Batch]) -> np.ndarray:
  """Returns the logits of the real targets, float32 [n]."""

  def apply(variables: Any, batch: types.Batch) -> dict[str, Any]:
    """Returns the logits of a batch."""
    output: Any = run.model.apply(variables, batch)
    return {'logit': output.logits}

  return _collect(jax.jit(apply), run, batches)['logit']


def head_inputs(run: trained.Trained, batches: Iterable[types.Batch]) -> Arrays:
  """Returns what the main head sees of each real target.

  Returns:
    'input', float32 [n, width], before normalisation; and 'interest', its part
    target * interest, or the interest alone where the model has no such part.
  """

  def apply(variables: Any, batch: types.Batch) -> dict[str, Any]:
    """Returns the inputs of a batch's main head."""
    seen: list[Any] = []

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
      """Keeps the first input of the main head."""
      is_main = context.module.name == 'head' and not seen
      if is_main and isinstance(context.module, head.Head):
        seen.append(args[0])
      return call(*args, **kwargs)

    with nn.intercept_methods(record):
      run.model.apply(variables, batch)
    return {'input': seen[0]}

  arrays = _collect(jax.jit(apply), run, batches)
  arrays['interest'] = arrays['input'][:, _interest(run.model.config)]
  return arrays


def _interest(config: models.RankerConfig) -> slice:
  """Which part of the head's input is target * interest, or the interest."""
  if config.only_product:
    place = 0
  else:
    place = 2 if config.target_aware else 1
  widths = [feature.dim('representation') for feature in config.content]
  if config.has_time_beside:
    widths.append(config.time.dim('representation'))
  width = sum(widths)
  return slice(place * width, (place + 1) * width)


def _is_apart(config: models.RankerConfig) -> bool:
  """Whether fields, and time, have parts of a vector of their own."""
  projection = embeddings.PLANS[config.plan].projection
  return projection is None or projection.per_field


def category_scores(
  run: trained.Trained,
  target: np.ndarray,
  behavior: np.ndarray,
  position: np.ndarray,
) -> np.ndarray:
  """Returns the scores of behaviors of categories at positions.

  Items and further fields count nothing. A scorer that takes whole vectors, or
  a plan that mixes fields, sees the unknown item instead.

  Args:
    run: the run whose model scores.
    target: int [n], categories of targets.
    behavior: int [n, g], categories.
    position: int [g], below or at the run's history length.

  Returns:
    float32 [n, g].
  """
  length = run.experiment.options.data.history_length
  apply = jax.jit(
    functools.partial(run.model.apply, method=_grid), static_argnums=4
  )
  target, behavior = (
    run.experiment.as_read('category', np.asarray(ids))
    for ids in (target, behavior)
  )
  scores = apply(
    run.variables,
    jnp.asarray(target)[:, None, None],
    jnp.asarray(behavior),
    jnp.asarray(position),
    length,
  )
  return np.asarray(scores)[:, 0, 0]


def _grid(
  module: models.Ranker, target: Any, behavior: Any, position: Any, length: int
) -> Any:
  def ids_of(category: Any) -> dict[str, Any]:
    """Returns field -> ids: the category, else the unknown id."""
    fields = (feature.name for feature in module.config.content)
    unknown = jnp.ones_like(category)
    return {f: category if f == 'category' else unknown for f in fields}

  n, g = behavior.shape
  history = types.History(ids=ids_of(behavior), mask=jnp.ones((n, g), bool))
  query, bias = module.encode_targets(ids_of(target), length)
  view = searches.SearchView(
    query=query,
    keys=module.encode_history(history),
    bias_by_distance=bias,
    distance=jnp.broadcast_to(position, (n, 1, g)),
    visible=jnp.ones((n, 1, g), bool),
    target_ids=ids_of(target),
    history=history,
    time_dim=module.config.time.attention_dim if module.config.use_time else 0,
    matching=module.encode_matches(ids_of(target)),
  )
  return module.scores(_by_category(module, view))


def _rankings(keep: int) -> Callable[..., dict[str, Any]]:
  def rank(module: models.Ranker, batch: types.Batch) -> dict[str, Any]:
    """Returns name -> array of what is found in a batch, and of its scores."""
    view = _view(module, batch)
    result = module.searcher(view, module.scores)[0]
    indices, mask = found.best(result, keep)
    ranking = {'found': jnp.where(mask, _back(batch, indices), 0)}
    plain = module.scores(_by_category(module, view))
    visible = view.visible[:, :, None, :]
    length = plain.shape[-1]
    indices, mask = selection.top_k(plain, visible, min(keep, length))
    ranking['by_category'] = jnp.where(mask, _back(batch, indices), 0)
    return ranking

  return rank


def _back(batch: types.Batch, indices: Any) -> Any:
  return batch.end[:, :, None, None] - indices


def _view(module: models.Ranker, batch: types.Batch) -> searches.SearchView:
  length = batch.history.mask.shape[1]
  query, bias = module.encode_targets(batch.targets.ids, length)
  return searches.SearchView(
    query=query,
    keys=module.encode_history(batch.history),
    bias_by_distance=bias,
    distance=batch.distance(),
    end=batch.end,
    visible=batch.visible(),
    target_ids=batch.targets.ids,
    history=batch.history,
    time_dim=module.config.time.attention_dim if module.config.use_time else 0,
    matching=module.encode_matches(batch.targets.ids),
    gap=module.real_time.gaps(batch),
  )


def _by_category(
  module: models.Ranker, view: searches.SearchView
) -> searches.SearchView:
  """Leaves nothing of the vectors but the category's part, if that is known.

  Of what matches add, too, nothing but the category's.
  """
  config = module.config
  bias = {f: x for f, x in view.matching.bias.items() if f == 'category'}
  matching = dataclasses.replace(view.matching, bias=bias)
  view = dataclasses.replace(view, matching=matching)
  if config.scorer == 'network' or not _is_apart(config):
    return view
  kept = np.concatenate(
    [
      np.full(feature.dim('attention'), feature.name == 'category')
      for feature in config.content
    ]
  )
  factor = jnp.expand_dims(jnp.asarray(kept, view.query.dtype), (0, 1, 2))
  return dataclasses.replace(view, query=view.query * factor)


def _collect(
  apply: Callable[..., dict[str, Any]],
  run: trained.Trained,
  batches: Iterable[types.Batch],
) -> Arrays:
  """Joins what a call gives for batches, of the real targets alone."""
  parts: dict[str, list[np.ndarray]] = {}
  for batch in batches:
    batch = run.experiment.batch_as_read(batch)
    real = np.asarray(batch.targets.weight) > 0
    for name, values in jax.device_get(apply(run.variables, batch)).items():
      parts.setdefault(name, []).append(values[real])
  return {name: np.concatenate(values) for name, values in parts.items()}
