"""Random models, variables and batches, and two calls that measure them.

Each call is one program of a model and the shapes of a batch, compiled once:
keep to the default sizes where you can. Arrays are made by NumPy and put on the
device as they are: each of the calls that `jax.numpy` makes is a program.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import aggregate
from dare_jax import models
from dare_jax import types
from dare_jax.configs import base
from dare_jax.training import losses
from dare_jax.training import options as train_options

VOCAB = {'item': 40, 'category': 9}
LENGTH = 6


def build(name: str = 'dare', **options: Any) -> models.Ranker:
  """Returns a tiny ranker: distances over 4 share log-spaced time ids."""
  sizes: dict[str, Any] = {
    'vocab_sizes': VOCAB,
    'attention_dim': 3,
    'representation_dim': 3,
    'top_k': 3,
    'exact_positions': 4,
    'hidden': (5, 4),
    'aux_hidden': (4,),
  }
  return models.build(name, **(sizes | options))


def optim(**changes: Any) -> train_options.Options:
  """Returns how to train: the base config with dense Adam, and changes."""
  section = base.get_config().optim
  section.update(**({'tables': 'adam'} | changes))
  return train_options.of_section(section)


def make_batch(
  seed: int = 0,
  *,
  windows: int = 6,
  moments: int = 2,
  candidates: int = 2,
  length: int = LENGTH,
  num_padding: tuple[int, ...] = (0, 2, 5),
  vocab: Mapping[str, int] | None = None,
  context: Mapping[str, int] | None = None,
) -> types.Batch:
  """Returns a batch with moments anywhere after the first real behavior.

  Args:
    seed: of all choices.
    windows: histories.
    moments: of each.
    candidates: targets of each moment.
    length: of a history, padding included.
    num_padding: padding of the first histories; the others have none.
    vocab: field -> rows; ids are drawn from 1 on.
    context: field -> rows.
  """
  rng = np.random.default_rng(seed)
  padding = np.array((*num_padding, *[0] * windows)[:windows])
  mask = np.arange(length) >= padding[:, None]
  vocab = VOCAB if vocab is None else vocab

  def draw(rows: int, *shape: int) -> np.ndarray:
    return rng.integers(1, rows, shape).astype(np.int32)

  history = {f: draw(rows, *mask.shape) * mask for f, rows in vocab.items()}
  shape = (windows, moments, candidates)
  targets = {f: draw(rows, *shape) for f, rows in vocab.items()}
  end = rng.integers(padding[:, None] + 1, length + 1, (windows, moments))
  batch = types.Batch(
    history=types.History(ids=history, mask=mask),
    end=end.astype(np.int32),
    targets=types.Targets(
      ids=targets,
      label=rng.integers(0, 2, shape).astype(np.float32),
      weight=np.ones(shape, np.float32),
    ),
    context={
      field: draw(rows, windows, moments)
      for field, rows in (context or {}).items()
    },
  )
  return jax.device_put(batch)


def with_clusters(batch: types.Batch, count: int, seed: int = 0) -> types.Batch:
  """Returns a batch whose histories have up to `count` clusters each."""
  rng = np.random.default_rng(seed)
  mask = np.asarray(batch.history.mask)
  cluster, rank = (
    rng.integers(low, high, mask.shape).astype(np.int32) * mask
    for low, high in ((0, count), (1, 4))
  )
  grouped = jax.device_put(types.Clusters(cluster=cluster, rank=rank))
  return batch.replace(history=batch.history.replace(clusters=grouped))


def make_variables(
  model: models.Ranker, batch: types.Batch, seed: int = 0
) -> dict[str, Any]:
  """Returns variables far from their initial values, padding rows included."""
  rng = np.random.default_rng(seed)
  shapes = _program(_init, model).eval_shape(batch)  # Traced once.

  def draw(path: Any, leaf: Any) -> np.ndarray:
    name = path[-1].key
    if name == 'count':
      return np.full(leaf.shape, 17.0, np.float32)
    value = rng.normal(size=leaf.shape)
    if name in ('scale', 'var'):
      value = np.exp(0.3 * value)
    elif name in ('mean', 'bias', 'negative_slope'):
      value *= 0.3
    elif name == 'kernel':
      value /= np.sqrt(leaf.shape[0])
    return np.asarray(value, np.float32)

  return jax.device_put(jax.tree.map_with_path(draw, shapes))


def to_float64(tree: Any) -> Any:
  """Widens the floats, in `jit` as well; call it under `jax.enable_x64`."""

  def widen(x: Any) -> Any:
    if not jnp.issubdtype(x.dtype, jnp.floating):
      return x
    if isinstance(x, jax.core.Tracer):
      return x.astype(jnp.float64)
    return jax.device_put(np.asarray(x, np.float64))

  return jax.tree.map(widen, tree)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Measured:
  """What one training call gives."""

  loss: Any
  output: types.RankerOutput
  batch_stats: Any
  grads: dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Evaluated:
  """What one call in eval mode gives; `interest` is the aggregation's."""

  output: types.RankerOutput
  batch_stats: Any
  interest: Any


def loss(output: types.RankerOutput, targets: types.Targets) -> jax.Array:
  """The training loss without l2."""
  entropy = losses.binary_cross_entropy(output.logits, targets.label)
  total = losses.weighted_mean(entropy, targets.weight)
  if output.aux_logits is not None:
    entropy = losses.binary_cross_entropy(output.aux_logits, targets.label)
    total += losses.weighted_mean(entropy, targets.weight)
  return total


@functools.cache
def _program(call: Callable[..., Any], model: models.Ranker) -> Any:
  return jax.jit(functools.partial(call, model))


def measure(
  model: models.Ranker, variables: Mapping[str, Any], batch: types.Batch
) -> Measured:
  """Returns the loss in train mode, and its gradients of params and tables."""
  return _program(_measure, model)(variables, batch)


def _measure(
  model: models.Ranker, variables: Mapping[str, Any], batch: types.Batch
) -> Measured:

  def compute(trained: Any) -> Any:
    output, updated = model.apply(
      {**variables, **trained}, batch, train=True, mutable=['batch_stats']
    )
    return loss(output, batch.targets), (output, updated['batch_stats'])

  trained = {name: variables[name] for name in ('params', 'tables')}
  (value, (output, stats)), grads = jax.value_and_grad(compute, has_aux=True)(
    trained
  )
  return Measured(value, output, stats, grads)


def evaluate(
  model: models.Ranker, variables: Mapping[str, Any], batch: types.Batch
) -> Evaluated:
  """Returns the output in eval mode, and what the aggregation gave."""
  return _program(_evaluate, model)(variables, batch)


def _evaluate(
  model: models.Ranker, variables: Mapping[str, Any], batch: types.Batch
) -> Evaluated:
  found = {}
  kinds = tuple(aggregate.AGGREGATIONS.values())

  def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    value = call(*args, **kwargs)
    if isinstance(context.module, kinds):
      found['interest'] = value[0]
    return value

  with nn.intercept_methods(keep):
    output, updated = model.apply(variables, batch, mutable=['batch_stats'])
  return Evaluated(output, updated['batch_stats'], found['interest'])


def outputs(
  model: models.Ranker, variables: Mapping[str, Any], batch: types.Batch
) -> tuple[types.RankerOutput, types.RankerOutput]:
  """Returns the outputs in eval and in train mode, of one program."""
  return _program(_outputs, model)(variables, batch)


def _outputs(
  model: models.Ranker, variables: Mapping[str, Any], batch: types.Batch
) -> tuple[types.RankerOutput, types.RankerOutput]:
  trained, _ = model.apply(
    variables, batch, train=True, mutable=['batch_stats']
  )
  return model.apply(variables, batch), trained


def init(model: models.Ranker, batch: types.Batch) -> dict[str, Any]:
  """Returns the variables that a model begins with."""
  return _program(_init, model)(batch)


def _init(model: models.Ranker, batch: types.Batch) -> dict[str, Any]:
  return model.init(jax.random.key(0), batch)


def call(
  model: models.Ranker, variables: Mapping[str, Any], method: str, *args: Any
) -> Any:
  """Returns what a method gives; its flags and sizes are not traced."""
  fixed = tuple((i, x) for i, x in enumerate(args) if isinstance(x, int))
  arrays = [x for x in args if not isinstance(x, int)]
  return _method(model, method, fixed)(variables, *arrays)


@functools.cache
def _method(
  model: models.Ranker, method: str, fixed: tuple[tuple[int, Any], ...]
) -> Any:
  def run(variables: Mapping[str, Any], *args: Any) -> Any:
    every = list(args)
    for place, value in fixed:
      every.insert(place, value)
    return model.apply(variables, *every, method=method)

  return jax.jit(run)


def predict(
  model: models.Ranker, variables: Mapping[str, Any], batch: types.Batch
) -> jax.Array:
  """Returns the logits in eval mode."""
  return evaluate(model, variables, batch).output.logits


def head_inputs(
  model: models.Ranker,
  variables: Mapping[str, Any],
  batch: types.Batch,
  train: bool,
) -> dict[str, jax.Array]:
  """Returns head's name -> the features it was given."""
  found = {}

  def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if context.module.name in ('head', 'aux'):
      found[context.module.name] = args[0]
    return call(*args, **kwargs)

  with nn.intercept_methods(keep):
    model.apply(variables, batch, train=train, mutable=['batch_stats'])
  return found
