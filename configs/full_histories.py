"""DARE on all that each household ever bought: up to 4,193 purchases back.

The quickstart with full histories, in batches of a few lengths. See
docs/long_histories.md for test AUC against the length of the history.

Data: Complete Journey, as in configs/quickstart.py.

    python -m dare_jax.train --config=configs/full_histories.py
    python -m dare_jax.train --config=configs/full_histories.py:model=twin
    python -m dare_jax.train --config=configs/full_histories.py:length=1000
"""

import ml_collections

from dare_jax.configs import base
from dare_jax.configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = quickstart.get_config()
  config.data.history_length = 4_193
  config.data.max_padding = 0.2
  config.eval.every_steps = 0  # at the end, when the learning rate is 0
  config.eval.batch_size = 256
  config.checkpoint.every_steps = 160
  return base.apply_arg(config, arg)
