"""MovieLens 1M: a million ratings of 3,706 movies by 6,040 users.

Source: GroupLens, `ml-1m.zip`. Expects: that file, or the folder it unpacks to,
as `data.input`. Category: a movie's combination of genres. Users are shorter
here than in the shops' logs, hence the lower limits.

    python -m dare_jax.train --config=configs/movielens_1m.py \
        --config.data.input=ml-1m.zip
"""

import ml_collections

from dare_jax.configs import base


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = base.get_config()
  config.data.name = 'movielens_1m'
  config.data.split = 'leave_last_session'
  config.data.min_history = 20
  config.data.min_events = 50
  config.data.history_length = 200
  return base.apply_arg(config, arg)
