"""Configs: what is refused, how they are saved, and what may differ."""

import json

from absl.testing import parameterized
import pytest

from dare_jax import errors
from dare_jax.configs import base
from dare_jax.experiments import model_section
from dare_jax.experiments import run_config


def config(**fields):
  made = base.get_config()
  for name, value in fields.items():
    made.update_from_flattened_dict({name.replace('__', '.'): value})
  return made


class ModelTest(parameterized.TestCase):
  @parameterized.parameters(
    ('model.name', 'dar', "did you mean 'dare'"),
    ('model.plan', 'splt', 'decoupled'),
    ('model.search', 'x', 'score'),
    ('model.attention_dim', 0, 'attention_dim'),
    ('model.representation_dim', -3, 'representation_dim'),
    ('model.exact_positions', 0, 'exact_positions'),
  )
  def test_models_that_cannot_be(self, field, value, named):
    made = config(**{field.replace('.', '__'): value})
    with pytest.raises(errors.UsageError) as caught:
      model_section.build(made, {'item': 9, 'category': 5}, {'shop': 3})
    assert named in str(caught.value)

  def test_dimension_zero_of_one_field(self):
    made = config(model__attention_dims__item=0)
    with pytest.raises(errors.UsageError, match='item'):
      model_section.build(made, {'item': 9, 'category': 5})


def test_fields_that_the_config_names_are_known_before_the_log():
  made = config(
    data__columns__fields=('brand',), model__match_fields=('item', 'brand')
  )
  model_section.check(made)
  made.model.match_fields = ('brnd',)
  with pytest.raises(errors.UsageError, match="did you mean 'brand'"):
    model_section.check(made)


def test_widths_of_item_vectors_need_item_vectors():
  made = config(model__attention_dims__item_vector=8)
  with pytest.raises(errors.UsageError, match='item_vector'):
    model_section.check(made)
  made.data.item_vectors = 'vectors.npy'
  model_section.check(made)


def test_flatten_is_plain_json():
  flat = run_config.flatten(config())
  assert flat['seed'] == 1
  assert flat['train.steps'] is None
  assert flat['data.columns.user'] == 'user_id'
  assert flat['model.hidden'] == [200, 80]
  assert flat['model.attention_dims.item'] is None
  assert json.loads(json.dumps(flat)) == flat


def test_hash_follows_every_field():
  made = {run_config.digest(config(seed=seed)) for seed in (1, 2, 2)}
  assert len(made) == 2
  assert run_config.digest(config(eval__batch_size=9)) not in made


def save(made, folder):
  path = folder / 'config.json'
  path.write_text(json.dumps(run_config.flatten(made)))
  return path


def test_load_config_gives_back_what_was_saved(tmp_path):
  made = config(seed=4, train__steps=7, model__hidden=(3,), data__input='x')
  save(made, tmp_path)
  loaded = run_config.load(tmp_path)
  assert loaded.to_json() == made.to_json()
  assert loaded.is_locked


def test_load_config_errors(tmp_path):
  with pytest.raises(errors.UsageError, match='no run there'):
    run_config.load(tmp_path)
  (tmp_path / 'config.json').write_text('{"model.brain": 3}')
  with pytest.raises(errors.UsageError, match='model.brain is unknown'):
    run_config.load(tmp_path)
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(errors.UsageError, match='not readable'):
    run_config.load(tmp_path)


class SameRunTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  @parameterized.parameters(
    {'train__steps': 10},
    {'train__epochs': 3.5},
    {'train__log_every_steps': 1},
    {'eval__every_steps': 7},
    {'checkpoint__every_steps': 0},
  )
  def test_lengths_and_periods_may_differ(self, **fields):
    path = save(config(), self.folder)
    run_config.check_same_run(config(**fields), path)

  @parameterized.parameters(
    ('seed', 2),
    ('model.name', 'twin'),
    ('model.hidden', (7,)),
    ('model.attention_dims.time', 3),
    ('train.batch_size', 9),
    ('optim.learning_rate', 0.5),
    ('data.num_negatives', 5),
    ('data.columns.label', 'clicked'),
  )
  def test_anything_else_is_refused_by_name(self, field, value):
    path = save(config(), self.folder)
    changed = config(**{field.replace('.', '__'): value})
    with pytest.raises(errors.UsageError) as caught:
      run_config.check_same_run(changed, path)
    assert str(caught.value).startswith(f'{field}=')
    assert str(path.parent) in str(caught.value)

  def test_a_field_that_is_newer_than_the_run_had_its_default(self):
    path = self.folder / 'config.json'
    flat = run_config.flatten(config())
    assert not flat.pop('model.published_search')
    path.write_text(json.dumps(flat))
    run_config.check_same_run(config(), path)
    with pytest.raises(errors.UsageError, match='^model.published_search=True'):
      run_config.check_same_run(config(model__published_search=True), path)

  def test_a_field_of_another_version_is_refused(self):
    path = self.folder / 'config.json'
    flat = run_config.flatten(config())
    path.write_text(json.dumps(flat | {'model.brain': 3}))
    with pytest.raises(errors.UsageError, match='model.brain'):
      run_config.check_same_run(config(), path)
