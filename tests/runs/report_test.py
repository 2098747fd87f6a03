"""What is printed at the end of a run."""

import shlex

import pytest

from dare_jax.runs import report

_RESULT = {
  'model': 'dare',
  'dataset': 'complete_journey',
  'seed': 1,
  'steps': 8,
  'best_step': 8,
  'val': {'auc': 0.6},
  'test': {'auc': 0.5},
  'train_time_s': 1.0,
  'examples_per_s': 10.0,
  'parameters': {
    'attention_tables': 1,
    'representation_tables': 1,
    'other': 1,
  },
}


def commands(result, workdir, config, overrides):
  """The arguments of the commands that are printed."""
  text = report.summary(_RESULT | result, workdir, config, overrides)
  _, *found = text.split('python -m dare_jax.train ')
  return text, [shlex.split(part.splitlines()[0]) for part in found]


def test_commands_keep_what_was_given():
  overrides = {
    'data.input': 'my log.csv',
    'data.columns.fields': ('shop',),
    'model.name': 'dare',
    'train.steps': None,
  }
  text, (compare, narrow) = commands(
    {'dataset': 'csv_log'}, 'runs/mine', 'configs/csv_log.py:seed=2', overrides
  )
  given = [
    '--config=configs/csv_log.py:seed=2',
    '--config.data.input=my log.csv',
    "--config.data.columns.fields=('shop',)",
  ]
  steps = '--config.train.steps=None'
  assert compare == [*given, steps, '--config.model.name=twin']
  assert narrow == [
    *given,
    '--config.model.name=dare',
    steps,
    '--config.model.attention_dim=8',
    '--workdir=runs/mine-narrow',
  ]
  assert 'your own log' not in text  # It is one.


def test_the_other_model_is_not_observed():
  overrides = {'seed': 2, 'train.observe_gradients': True}
  _, (compare, *_) = commands(
    {'model': 'twin'}, 'runs/twin', 'configs/quickstart.py', overrides
  )
  assert compare == [
    '--config=configs/quickstart.py',
    '--config.seed=2',
    '--config.model.name=dare',
  ]


def test_what_was_best_and_what_is_left_out():
  text = report.summary(_RESULT, 'runs/x', 'configs/csv_log.py', {})
  assert 'step 8 of 8 was best\n' in text and 'left out' not in text
  changes = {
    'best_by': 'logloss',
    'left_out': {'auc': 'all 9 labels are 1', 'gauc': 'all 9 labels are 1'},
  }
  text = report.summary(_RESULT | changes, 'runs/x', 'configs/csv_log.py', {})
  assert 'step 8 of 8 was best, by logloss\n' in text
  assert '\nleft out of the test: auc, gauc (all 9 labels are 1)\n' in text
  text = report.summary(_RESULT | {'best_by': None}, 'x', 'configs/x.py', {})
  assert 'step 8 of 8 is the last; none was best' in text


@pytest.mark.parametrize('model', ['twin', 'din'])
def test_another_model(model):
  text, (compare,) = commands({'model': model}, 'w', 'configs/x.py', {})
  assert compare == ['--config=configs/x.py', '--config.model.name=dare']
  assert 'your own log           configs/csv_log.py says how' in text
