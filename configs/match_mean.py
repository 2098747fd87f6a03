"""The best ranker here on Complete Journey: fields, matches and the mean.

The quickstart's log, split and epoch, with what the log knows of a product, the
preset `dare_match_mean`, batches of half as many windows and lower rates, each
chosen by validation. See docs/results.md for what each part brings.

Data: Complete Journey, as in configs/quickstart.py.

    python -m dare_jax.train --config=configs/match_mean.py
"""

import ml_collections

from dare_jax.configs import base
from dare_jax.configs import quickstart


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = quickstart.get_config()
  config.data.fields = (
    'brand',
    'manufacturer',
    'department',
    'product_category',
  )
  config.model.name = 'dare_match_mean'
  config.optim.learning_rate = 0.006
  config.optim.table_learning_rate = 0.02
  config.train.batch_size = 684  # 36 windows
  config.eval.every_steps = 642
  config.checkpoint.every_steps = 642
  return base.apply_arg(config, arg)
