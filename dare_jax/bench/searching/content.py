"""AUC on items that training never saw, with and without content vectors.

    python -m dare_jax.bench content [--users=1000] [--steps=600] [--seeds=3]

makes a log whose users each like a few of some themes. An item's theme is in
its vector, beside noise, and nowhere else: its category is drawn at random. A
moment shows one item of the user's themes and two of others; from validation
on, half of the moments show items that are new. A row is a way to read the
vectors: not at all, by the search (`attention`), by what predicts
(`representation`), by both, as is the default, and by both with vectors that
are trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import pathlib
import tempfile
from typing import Any

from absl import flags
import ml_collections
import numpy as np
import polars as pl

from dare_jax import train
from dare_jax.configs import csv_log
from dare_jax.evaluation import metrics
from dare_jax.runs import interrupt
from dare_jax.runs import saved_run

VARIANTS: Mapping[str, Mapping[str, Any]] = {
  'none': {'data.item_vectors': None},
  'attention': {'model.vectors_in': ('attention',)},
  'representation': {'model.vectors_in': ('representation',)},
  'both': {},
  'both, tuned': {'model.tune_vectors': True},
}
_CATEGORIES = 10
_NEGATIVES = 2


@dataclasses.dataclass(frozen=True)
class Shape:
  """Sizes of the made log.

  Attributes:
    users: number of users, each with one history.
    times: number of moments of each user; the last fifth validates and tests.
    themes: number of themes.
    liked: number of themes that a user likes.
    items: number of items of a theme that training sees; as many more are new
      in the test.
    width: width of the items' vectors.
    noise: length of the noise in an item's vector; a theme's vector has length
      1.
  """

  users: int = 1000
  times: int = 60
  themes: int = 24
  liked: int = 3
  items: int = 40
  width: int = 32
  noise: float = 0.7


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  users = flags.DEFINE_integer('users', 1000, 'Users of the log.', 20)
  steps = flags.DEFINE_integer('steps', 600, 'Steps of a run.', 1)
  seeds = flags.DEFINE_integer('seeds', 3, 'Runs of a row.', 1)

  def measure() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
      root = pathlib.Path(folder)
      write(root, Shape(users=users.value))
      made = config(root, steps.value)
      return [row(made, root, name, seeds.value) for name in VARIANTS]

  return measure


def write(folder: pathlib.Path, shape: Shape, seed: int = 0) -> None:
  """Writes `log.parquet` and `vectors.parquet`."""
  rng = np.random.default_rng(seed)
  themes = _unit(rng.normal(size=(shape.themes, shape.width)))
  count = 2 * shape.themes * shape.items  # Each theme's, the new ones last.
  theme = np.arange(count) % shape.themes
  noise = _unit(rng.normal(size=(count, shape.width)))
  vectors = (themes[theme] + shape.noise * noise).astype(np.float32)
  category = rng.integers(_CATEGORIES, size=count)
  liked = np.argsort(rng.random((shape.users, shape.themes)), axis=1)
  user, time = (axis.ravel() for axis in np.indices((shape.users, shape.times)))
  is_new = rng.random(len(user)) < 0.5 * (time >= first_val(shape))
  columns = []
  for slot in range(1 + _NEGATIVES):
    first, stop = (0, shape.liked) if slot == 0 else (shape.liked, shape.themes)
    own = liked[user, rng.integers(first, stop, len(user))]
    number = rng.integers(shape.items, size=len(user)) + is_new * shape.items
    columns.append(own + shape.themes * number)
  item = np.stack(columns, axis=1)
  label = np.broadcast_to(np.arange(item.shape[1]) == 0, item.shape)
  repeated = {'user_id': user, 'timestamp': time}
  log = pl.DataFrame(
    {
      **{name: np.repeat(x, item.shape[1]) for name, x in repeated.items()},
      'item_id': item.ravel(),
      'category_id': category[item.ravel()],
      'label': label.ravel().astype(np.int8),
    }
  )
  log.write_parquet(folder / 'log.parquet')
  pl.DataFrame(
    {'item': np.arange(count), 'vector': vectors.tolist()}
  ).write_parquet(folder / 'vectors.parquet')


def first_val(shape: Shape) -> int:
  """Returns from which time on moments validate; half of these test."""
  return shape.times * 4 // 5


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def config(
  folder: pathlib.Path, steps: int, shape: Shape = Shape()
) -> ml_collections.ConfigDict:
  """Returns the config of a run on what `write` wrote."""
  made = csv_log.get_config()
  first = first_val(shape)
  made.update_from_flattened_dict(
    {
      'data.input': str(folder / 'log.parquet'),
      'data.data_dir': str(folder / 'data'),
      'data.item_vectors': str(folder / 'vectors.parquet'),
      'data.columns.label': 'label',
      'data.split': 'by_time',
      'data.val_from': first,
      'data.test_from': (first + shape.times) // 2,
      'data.history_length': shape.times,
      'data.min_history': 5,
      'data.min_events': 5,
      'model.top_k': 10,
      'model.attention_dim': 16,
      'model.representation_dim': 16,
      'train.batch_size': 256,
      'train.steps': steps,
      'eval.every_steps': max(1, steps // 4),
      'checkpoint.every_steps': 0,
    }
  )
  return made


def row(
  made: ml_collections.ConfigDict, folder: pathlib.Path, name: str, seeds: int
) -> dict[str, Any]:
  """Returns the AUC of a variant on new items and on others, of the test.

  Args:
    made: the config that `config` returned.
    folder: the folder in which the runs are made.
    name: a key of `VARIANTS`.
    seeds: number of runs, with the seeds 1 to this.
  """
  found = []
  for seed in range(1, seeds + 1):
    own = made.copy_and_resolve_references()
    own.update_from_flattened_dict({**VARIANTS[name], 'seed': seed})
    workdir = folder / f'{name.replace(", ", "-")}-{seed}'
    train.train_and_evaluate(own, workdir, interrupt.StopSignal())
    found.append(auc(workdir))
  means, stds = np.mean(found, axis=0), np.std(found, axis=0)
  return {
    'vectors': name,
    'seeds': seeds,
    'auc_new_items': float(means[0]),
    'std_new_items': float(stds[0]),
    'auc_other_items': float(means[1]),
    'std_other_items': float(stds[1]),
  }


def auc(workdir: pathlib.Path) -> tuple[float, float]:
  """Returns the AUC of a run's best checkpoint among items, and others.

  Returns:
    The AUC among the test's targets whose items training has not read; and
    among the other targets.
  """
  saved = saved_run.restore(workdir)
  parts = saved.experiment
  found = parts.predict(saved.state, 'test')
  batches = parts.pipelines['test'].eval_batches(
    parts.options.evaluation.batch_size
  )
  item = np.concatenate([b.stored.targets.ids['item'].ravel() for b in batches])
  is_known = parts.known['item'][item]
  new, others = (
    metrics.auc(found.logit[rows], found.label[rows], found.weight[rows])
    for rows in (~is_known, is_known)
  )
  return new, others
