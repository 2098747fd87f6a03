"""Runs that were never trained: fresh values, over the log of `tiny`."""

import pathlib
from typing import Any

from dare_jax import trained
from dare_jax.analysis import source as source_lib
from dare_jax.experiments import experiment
from tests import tiny


def source(root: pathlib.Path, name: str, **fields: Any) -> source_lib.Source:
  """Returns a source whose run is the fresh state of a model."""
  config = tiny.config(root, model__name=name, **fields)
  loaded = experiment.load(config)
  state = loaded.init_state()
  trainer = loaded.trainer
  tables = trainer.tables.by_id(state.tables['encoder'])
  variables = {
    'params': state.params,
    'tables': {'encoder': tables},
    'batch_stats': state.batch_stats,
    'constants': state.constants,
  }
  made = source_lib.Source(name, str(root / name), 0, config, {'data': 'tiny'})
  made.__dict__['run'] = trained.Trained(trainer.model, variables, 0, loaded)
  return made
