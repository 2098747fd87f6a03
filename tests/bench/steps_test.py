"""Tests of training steps by turns."""

import pytest

from dare_jax import errors
from dare_jax.bench.training import steps
from dare_jax.configs import base
from tests import tiny


@pytest.mark.slow
def test_configs_take_turns(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  config = tiny.config(tmp_path)
  entries = ['dare', 'narrow=dare:attention_dim=2:data.history_length=9']
  configs = steps.configs_of(config, entries)
  assert configs['narrow'].model.attention_dim == 2
  assert configs['narrow'].data.history_length == 9
  rows = steps.by_turns(configs, at_once=2, rounds=3, warm=1)
  assert [row['model'] for row in rows] == ['dare', 'narrow']
  assert rows[0]['ratio'] == rows[0]['cpu_ratio'] == 1.0
  for row in rows:
    assert row['step_ms'] > 0.0
    assert row['ratio'] == row['step_ms'] / rows[0]['step_ms']


@pytest.mark.parametrize(
  ('entries', 'said'),
  [
    ([], '--models is missing: expected one model or more'),
    (['a=dare:top_kk=3'], 'a: unknown field model.top_kk. Did you mean top_k'),
    (['a=dare:optim.l2=x'], 'a: optim.l2=x is not of the kind'),
    (['a=dare', 'a=twin'], '--models names a twice'),
    (['a=dare:data.history_length=0'], '--models: a: .*history_length'),
  ],
)
def test_bad_models_are_refused(entries, said):
  with pytest.raises(errors.UsageError, match=said):
    steps.configs_of(base.get_config(), entries)


def test_a_step_may_differ_in_what_a_comparison_shares():
  entries = ['dare', 'more=dare:data.num_negatives=9:data.columns.fields=a+b']
  made = steps.configs_of(base.get_config('seed=7'), entries)
  assert [own.data.num_negatives for own in made.values()] == [2, 9]
  assert made['more'].data.columns.fields == ('a', 'b')
  assert {own.seed for own in made.values()} == {7}
