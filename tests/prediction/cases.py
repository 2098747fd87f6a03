"""Runs, their test rows as an input, and what evaluation scored them."""

import pathlib

import numpy as np
import polars as pl

from dare_jax import trained
from tests import tiny

BLOCK = 64  # rows, so that these inputs have several


def rows(workdir: pathlib.Path) -> tuple[pl.DataFrame, np.ndarray]:
  """Returns rows as a log has them, and the logits of `predictions_test.npz`.

  Args:
    workdir: of a finished run.
  """
  run = trained.load(workdir)
  store, test = run.experiment.store, run.experiment.pipelines['test']
  raw = {
    field: store.raw_ids(field)
    for field in ('user', *store.fields, *store.context_fields)
  }
  named = {'user': 'user_id', 'item': 'item_id', 'category': 'category_id'}
  parts = []
  for item in test.eval_batches(run.experiment.config.eval.batch_size):
    real = item.batch.targets.weight > 0
    ids = {'user': item.user + 2, **item.stored.targets.ids}
    for field, of_moment in item.stored.context.items():
      ids[field] = np.broadcast_to(of_moment[..., None], real.shape)
    columns = {
      named.get(field, field): raw[field].gather(own[real] - 2)
      for field, own in ids.items()
    }
    parts.append(pl.DataFrame(columns))
  frame = pl.concat(parts)
  times = store.behaviors.columns['timestamp'][test.moments.target]
  frame = frame.with_columns(
    timestamp=pl.Series(np.repeat(times, test.targets_per_row)).cast(pl.Int64)
  )
  with np.load(workdir / 'predictions_test.npz') as saved:
    return frame, saved['logit']


def train(root: pathlib.Path, name: str, **fields) -> pathlib.Path:
  config = tiny.config(
    root,
    model__name=name,
    train__steps=4,
    optim__learning_rate=0.1,
    eval__every_steps=0,
    checkpoint__every_steps=0,
    model__cluster_size=3,
    model__cluster_every_steps=2,
    **fields,
  )
  tiny.run(config, root / name)
  return root / name


def read(path: pathlib.Path) -> pl.DataFrame:
  if path.suffix == '.parquet':
    return pl.read_parquet(path)
  return pl.read_csv(path, infer_schema=False)


def logits(path: pathlib.Path) -> np.ndarray:
  return read(path)['logit'].cast(pl.Float32).to_numpy()
