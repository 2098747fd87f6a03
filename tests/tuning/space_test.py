"""What a sweep may choose: read, checked, refused."""

import json

import optuna
import pytest

from dare_jax import errors
from dare_jax.configs import base
from dare_jax.tuning import space


def read(tmp_path, content, name='space.toml'):
  path = tmp_path / name
  path.write_text(content)
  return space.read(path, base.get_config())


_TOML = """
[optim]
learning_rate = {low = 1e-3, high = 0.1, log = true}
tables = ["lazy_adam", "row_adagrad"]
[model]
top_k = {low = 10, high = 35, step = 10}
hidden = [[200, 80], [64]]
aux_head = ["None", false]
norm_momentum = {low = 0.5, high = 0.9}
"""
_JSON = {
  'optim.learning_rate': {'low': 0.001, 'high': 0.1, 'log': True},
  'optim.tables': {'choices': ['lazy_adam', 'row_adagrad']},
  'model': {
    'top_k': {'low': 10, 'high': 30, 'step': 10},
    'hidden': [[200, 80], [64]],
    'aux_head': [None, False],
    'norm_momentum': {'low': 0.5, 'high': 0.9},
  },
}
_YAML = """
optim.learning_rate: {low: 1e-3, high: 0.1, log: true}
optim.tables: [lazy_adam, row_adagrad]
model:
  top_k: {low: 10, high: 30, step: 10}
  hidden: [[200, 80], [64]]
  aux_head: [null, false]
  norm_momentum: {low: 0.5, high: 0.9}
"""


def test_three_forms_of_one_space(tmp_path):
  fields = read(tmp_path, _TOML)
  assert fields == read(tmp_path, json.dumps(_JSON), 'space.json')
  assert fields == read(tmp_path, _YAML, 'space.yaml')
  assert fields[2] == space.Field('model.top_k', (), 10, 30, False, 10, True)
  assert fields[3].choices == ((200, 80), (64,))


def test_values_of_a_trial_are_of_the_fields_types(tmp_path):
  fields = read(tmp_path, _TOML)
  config = base.get_config()
  trial = optuna.create_study(
    sampler=optuna.samplers.RandomSampler(seed=0)
  ).ask()
  values = {field.name: field.suggest(trial) for field in fields}
  assert values == {field.name: field.suggest(trial) for field in fields}
  changed = space.apply(config, values)
  assert changed.model.top_k in (10, 20, 30)
  assert changed.model.hidden in ((200, 80), (64,))
  assert changed.model.aux_head in (None, False)
  assert 0.001 <= changed.optim.learning_rate <= 0.1
  assert config.optim.learning_rate == 0.01  # Untouched.


def test_which_values_the_space_has(tmp_path):
  top_k = read(tmp_path, 'model.top_k = {low = 10, high = 30, step = 10}')[0]
  assert [top_k.stored(value) for value in (20, 25, 40)] == [20, None, None]
  hidden = read(tmp_path, 'model.hidden = [[200, 80], [64]]')[0]
  assert hidden.stored((64,)) == '(64,)' and hidden.stored((9,)) is None


@pytest.mark.parametrize(
  ('content', 'named'),
  [
    ('', 'names no field'),
    ('a b', 'not TOML'),
    ('optim.learning_rat = [1.0]', 'did you mean optim.learning_rate?'),
    ('optim.learning_rate = 0.1', 'optim.learning_rate=0.1: expected {low'),
    ('optim.learning_rate = {low = 1.0}', 'expected {low, high}'),
    ('optim.learning_rate = {low = 1.0, hihg = 2.0}', "'hihg' is unknown"),
    ('optim.learning_rate = {low = 2.0, high = 1.0}', 'expected a low below'),
    ('optim.l2 = {low = 0, high = 1, log = true}', 'a low above 0 and below'),
    ('optim.l2 = {low = 0, high = 1, log = 1}', 'expected true or false'),
    ('optim.l2 = {low = 0, high = 1, step = -1}', 'expected a number above 0'),
    ('optim.l2 = {low = "a", high = 1}', "low='a': expected a number"),
    ('optim.l2 = {low = 0, high = 1, step = 2}', 'beyond high=1.0; expected a'),
    ('model.top_k = {low = 1.5, high = 3}', 'expected a whole number'),
    ('model.top_k = {low = 1, high = inf}', 'expected a whole number'),
    ('optim.l2 = {low = nan, high = 1.0}', 'low=nan: expected a number'),
    ('model.top_k = {low = 0, high = 3}', 'expected 1 or more'),
    ('model.top_k = {low = 1, high = 999}', 'exceeds data.history_length'),
    ('model.top_k = [1, true]', 'True is of the wrong kind; expected int'),
    ('model.top_k = [5, 5]', 'each of them once'),
    ('model.plan = {low = 1, high = 2}', 'holds str; expected a list'),
    ('optim.tables = ["adagrad"]', 'expected one of'),
    ('model.name = ["dare", "dear"]', 'model.name=dear'),
    ('data.split = ["by_time"]', 'decides what validation measures'),
    ('data.columns.user = ["a"]', 'decides what validation measures'),
    ('seed = [1, 2]', 'decides what validation measures'),
  ],
)
def test_refusals_name_the_field_and_what_is_expected(tmp_path, content, named):
  with pytest.raises(errors.UsageError) as raised:
    read(tmp_path, content)
  assert named in str(raised.value)
  assert str(raised.value).startswith(f'--space={tmp_path}/space.toml: ')


def test_refused_files(tmp_path):
  with pytest.raises(errors.UsageError, match='cannot be read'):
    space.read(tmp_path / 'none.json', base.get_config())
  with pytest.raises(errors.UsageError, match='ends in .toml, .json'):
    space.read(tmp_path / 'none.txt', base.get_config())
  for name, content, named in (
    ('list.json', '[{"low": 1}]', "holds \\[{'low': 1}\\]; expected names"),
    ('text.yaml', 'top_k', "holds 'top_k'; expected names of config fields"),
    ('empty.yaml', '# none yet', 'names no field'),
  ):
    with pytest.raises(errors.UsageError, match=named):
      read(tmp_path, content, name)


def test_files_among_the_choices_must_be_there(tmp_path):
  there = tmp_path / 'vectors.parquet'
  there.touch()
  choices = lambda *paths: f'data.item_vectors = {[*map(str, paths), "None"]}'
  read(tmp_path, choices(there))
  with pytest.raises(errors.UsageError, match='item_vectors=.*/none.npy: no'):
    read(tmp_path, choices(there, tmp_path / 'none.npy'))


def test_two_fields_may_need_each_other(tmp_path):
  content = 'model.top_k = {low = 100, high = 300}\n'
  with pytest.raises(errors.UsageError, match='model.top_k=300'):
    read(tmp_path, content)
  read(tmp_path, content + 'data.history_length = {low = 200, high = 400}')
