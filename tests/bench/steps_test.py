"""Tests of training steps by turns."""

import pytest

from dare_jax import errors
from dare_jax.bench.training import steps
from dare_jax.configs import base
from tests import tiny


def test_configs_take_turns(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  config = tiny.config(tmp_path)
  configs = dict(
    steps.different(config, text)
    for text in ('dare', 'narrow model.attention_dim=2 model.top_k=3')
  )
  assert configs['narrow'].model.attention_dim == 2
  rows = steps.by_turns(configs, at_once=2, rounds=3, warm=1)
  assert [row['config'] for row in rows] == ['dare', 'narrow']
  assert rows[0]['ratio'] == rows[0]['cpu_ratio'] == 1.0
  for row in rows:
    assert row['step_ms'] > 0.0
    assert row['ratio'] == row['step_ms'] / rows[0]['step_ms']


@pytest.mark.parametrize(
  ('text', 'said'),
  [('a model.top_kk=3', 'top_kk'), ('a model.top_k=x', 'top_k'), ('a b', 'b')],
)
def test_bad_differences_are_refused(text, said):
  with pytest.raises(errors.UsageError, match=said):
    steps.different(base.get_config(), text)
