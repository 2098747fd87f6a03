"""Tmall: clicks of 424 thousand users over half a year, 55 M rows.

Source: Alibaba Tianchi, data set 42, `user_log_format1.csv` (header; columns
user_id, item_id, cat_id, seller_id, brand_id, time_stamp, action_type).
Expects: that file as `data.input`. Time stamps are days, as `mmdd`.

    python -m dare_jax.train --config=configs/tmall.py \
        --config.data.input=user_log_format1.csv
"""

import ml_collections

from dare_jax.configs import base


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = base.get_config()
  config.data.name = 'tmall'
  config.data.sort_by_time = True
  config.data.split = 'leave_last'
  config.data.min_events = 210
  config.data.history_length = 200
  return base.apply_arg(config, arg)
