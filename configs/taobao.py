"""Taobao: page views of a million users over nine days, 100 M rows.

Source: Alibaba Tianchi, data set 649, `UserBehavior.csv` (no header; columns
user, item, category, type, time). Expects: that file as `data.input`.

    python -m dare_jax.train --config=configs/taobao.py \
        --config.data.input=UserBehavior.csv
"""

import ml_collections

from dare_jax.configs import base


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = base.get_config()
  config.data.name = 'taobao'
  config.data.sort_by_time = True
  config.data.split = 'leave_last'
  config.data.min_events = 210
  config.data.history_length = 200
  return base.apply_arg(config, arg)
