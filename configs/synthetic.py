"""A made log with a known relevance, fixed before any model was tuned on it.

Source: none; `dare_jax/logs/builders/synthetic.py` defines the process. The
store keeps the true relevance of (target category, behavior category, position)
in its folder `truth`. Vary `data.synthetic_seed`, `data.num_categories` and
`data.recency_scale` to check that a finding is not an accident of one log.

The sections below `data` are a recipe of training, chosen on the validation
split; docs/results.md says what each part of it brings. An item says nothing
here that its category does not, and 200 categories need about as many
dimensions for unrelated ones to score near 0. The click alone teaches attention
little, so the auxiliary loss, which reads the attention over all behaviors,
counts most. The widths of `item` and `category` go by field, so that the
argument's `dim` sets that of time alone.

    python -m dare_jax.train --config=configs/synthetic.py
"""

import ml_collections

from dare_jax.configs import base


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = base.get_config()
  data = config.data
  data.name = 'synthetic_lifelong'
  data.num_users = 2_000
  data.num_items = 20_000
  data.num_categories = 200  # popularity q(c), Zipf with the exponent below
  data.category_exponent = 0.8
  data.item_exponent = 1.1  # Zipf, items within their category
  data.events_per_user = 400  # log-normal, from half of it to max_events
  data.events_sigma = 0.5
  data.max_events = 4_000
  data.relevance = 0.7  # share of events caused by an earlier behavior
  data.recency_scale = 60.0  # positions over which decay(p) falls by 1/e
  data.self_share = 0.5  # of caused events: in the cause's own category
  data.num_partners = 3  # the rest: in its partners, shares 1, 1/2, 1/3
  data.synthetic_seed = 0
  data.split = 'leave_last_session'  # every event is a session
  data.min_history = 50
  data.min_events = 100
  data.max_train_moments = 400
  data.history_length = 200
  for dims in (config.model.attention_dims, config.model.representation_dims):
    dims.item = 2
    dims.category = 128
  config.model.top_k = 60
  config.model.only_product = True
  config.optim.learning_rate = 0.003
  config.optim.table_learning_rate = 0.02
  config.optim.by_table = (('item_.*', 0.002, 0.0),)
  config.optim.schedule = 'linear'
  config.optim.aux_weight = 10.0
  config.train.batch_size = 342  # 18 windows
  config.train.moments_per_window = 19
  config.train.epochs = 1.0
  config.eval.every_steps = 1_000
  return base.apply_arg(config, arg)
