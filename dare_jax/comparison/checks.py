"""Checks the models of a comparison against the data; trains nothing.

    python -m dare_jax.comparison.checks --models=a,b [--config=...]
                                         [--config.a.b=v ...]

`compare` starts it, in a process of its own, before the first run. It finds
what `train` would refuse before its first step, and prepares the data if that
is yet to be done.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags
import ml_collections

from dare_jax import cli
from dare_jax import config_flag
from dare_jax import errors
from dare_jax import storage
from dare_jax.comparison import plan
from dare_jax.data import options as data_options
from dare_jax.data import splits
from dare_jax.evaluation import judge
from dare_jax.experiments import experiment
from dare_jax.logs import options as log_options
from dare_jax.process import numerics
from dare_jax.runs import memory_plan
from dare_jax.store import datasets
from dare_jax.store import history_store
from dare_jax.warm_start import lineage
from dare_jax.warm_start import starting


@numerics.of_runs()
def check(config: ml_collections.ConfigDict, entries: Sequence[str]) -> None:
  """Checks each model with the data that it reads.

  Args:
    config: the config that the models share.
    entries: the models, as `--models` of `compare` has them.

  Raises:
    UsageError: bad data, or the first model that does not fit; names it.
  """
  stores: dict[tuple[str, ...], history_store.HistoryStore] = {}
  for number, variant in enumerate(plan.parse_models(entries)):
    made = variant.apply(config, seed=1)
    if _read_by(made) not in stores:
      stores[_read_by(made)] = _open(made, variant)
    try:
      parts = _check_model(made, stores[_read_by(made)])
    except errors.UsageError as error:
      raise errors.UsageError(f'--models: {variant.label}: {error}') from None
    if number == 0:  # What depends on the rows alone.
      judge.check(parts.store, parts.options.data.split, parts.labels)
      parts.check()


def _read_by(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """Returns what tells apart the data that models read."""
  path = datasets.store_path(log_options.of_section(config.data))
  return str(path), str(config.data.item_vectors)


def _open(
  config: ml_collections.ConfigDict, variant: plan.Variant
) -> history_store.HistoryStore:
  """Returns the data that a model's runs read, with moments in each split.

  Raises:
    UsageError: bad data; names the model if it reads other than the rest.
  """
  try:
    store = experiment.store_of(config)
    splits.make_splits(store, data_options.of_section(config.data))
    return store
  except errors.UsageError as error:
    if not any(name.startswith('data.') for name, _ in variant.settings):
      raise
    raise errors.UsageError(f'--models: {variant.label}: {error}') from None


def _check_model(
  config: ml_collections.ConfigDict, store: history_store.HistoryStore
) -> experiment.Experiment:
  """Returns the parts of a run, which has not begun, if they fit together."""
  # A run that has not begun: its folder tells nothing about earlier ones.
  known = lineage.known_before(config, storage.locate('.'), has_begun=False)
  parts = experiment.load(config, lambda: store, known)
  memory_plan.of_state(parts.abstract_state()).check()
  if config.train.init_from is not None:
    starting.Older(parts, storage.locate(config.train.init_from))
  return parts


def main() -> None:
  """Checks the models as the flags say."""
  check(_CONFIG.value, _MODELS.value)


if __name__ == '__main__':
  _CONFIG = config_flag.define()
  _MODELS = flags.DEFINE_list('models', [], 'The models to check.')
  cli.run(main, default_config='quickstart')
