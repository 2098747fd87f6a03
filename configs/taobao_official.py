"""The published recipe on Taobao, quirks included, to compare with its numbers.

Source: arXiv 2410.02604 and its code (github.com/thuml/DARE, commit c72e087).
Each field set here under "published" changes numbers against `taobao.py`,
which has the good practice in its place; docs/fidelity.md tells them apart.

    python -m dare_jax.train --config=configs/taobao_official.py:model=dare
"""

import ml_collections

from dare_jax.configs import base
from dare_jax.configs import taobao


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  return base.apply_arg(published(taobao.get_config()), arg)


def published(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Sets the published recipe on a log's configuration."""
  data = config.data
  data.sort_by_time = False  # published: file order within a user
  data.split = 'leave_last'
  data.history_length = 200
  data.num_negatives = 2
  data.group_candidates = False  # published: single rows, shuffled one by one
  data.reshuffle = False  # published: every epoch in the same order
  data.unknown_rate = 0.0  # published: no unknown id, all keep their rows
  config.model.two_outputs = True
  config.model.batch_statistics = True
  config.model.norm_momentum = 0.9
  config.model.keep_padding = True
  config.model.published_search = True
  config.model.projection_init = 'official'
  config.model.attention_init = 0.01
  config.model.representation_init = 0.01
  config.optim.learning_rate = 0.01
  config.optim.schedule = 'constant'
  config.optim.tables = 'adam'
  config.optim.l2 = 1e-6
  config.optim.l2_on_norms = True
  config.optim.loss_epsilon = 1e-8
  config.optim.published_init = True
  config.train.batch_size = 2048
  config.train.epochs = 2.0
  config.eval.batch_size = 2048
  config.eval.every_steps = 150
  config.eval.drop_last = True
  return config
