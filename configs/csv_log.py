"""A log of your own, in CSV or Parquet.

Expects: a file, a folder or a pattern as `data.input`, of CSV (also separated
otherwise, or compressed by gzip or zstd) or Parquet, one row a behavior (or an
impression, with `data.columns.label`), with at least a user, an item, a
category and a time. `data.columns` names the columns; see docs/logs.md.

    python -m dare_jax.train --config=configs/csv_log.py \
        --config.data.input=log.csv --config.data.columns.user=customer \
        --config.data.columns.fields="('shop', 'price_bucket')"
"""

import ml_collections

from dare_jax.configs import base


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = base.get_config()
  config.data.name = 'csv_log'
  config.data.split = 'leave_last_session'
  config.data.min_history = 10
  config.data.min_events = 20
  config.data.history_length = 200
  return base.apply_arg(config, arg)
