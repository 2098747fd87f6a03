"""The published recipe on Tmall, quirks included, to compare with its numbers.

Source: arXiv 2410.02604 and its code (github.com/thuml/DARE, commit c72e087).
Each field set here under "published" changes numbers against `tmall.py`,
which has the good practice in its place; docs/fidelity.md tells them apart.

    python -m dare_jax.train --config=configs/tmall_official.py:model=dare
"""

import ml_collections

from dare_jax.configs import base
from dare_jax.configs import taobao_official
from dare_jax.configs import tmall


def get_config(arg: str = '') -> ml_collections.ConfigDict:
  """Returns the configuration; `arg` as in `base.apply_arg`."""
  config = taobao_official.published(tmall.get_config())
  config.data.sort_by_time = True  # published: by day, then in file order
  return base.apply_arg(config, arg)
