"""What `--models` may say, and what each run's config becomes."""

import json

import pytest

from dare_jax import errors
from dare_jax.comparison import plan
from dare_jax.configs import base
from dare_jax.experiments import run_config


def planned(entries, output, seeds=1):
  variants = plan.parse_models(entries)
  return plan.plan(base.get_config(), variants, seeds, output)


def test_labels_presets_and_fields(tmp_path):
  runs = planned(
    ['twin', 'a=dare:attention_dim=8:aux_head=False:attention_dims.item=3'],
    tmp_path,
    seeds=2,
  )
  assert [run.workdir.name for run in runs] == [
    *('twin-1', 'a-1', 'twin-2', 'a-2')
  ]
  model = runs[3].config.model
  assert (model.name, model.attention_dim, model.aux_head) == ('dare', 8, False)
  assert model.attention_dims.item == 3
  assert runs[3].config.seed == 2
  assert runs[3].variant.flags(2) == [
    '--config.seed=2',
    '--config.model.name=dare',
    '--config.model.attention_dim=8',
    '--config.model.aux_head=False',
    '--config.model.attention_dims.item=3',
  ]
  assert runs[0].config.model.attention_dim == 16


def test_a_field_of_several_values(tmp_path):
  entries = ['a=dare:match_fields=item+category', 'b=dare:hidden=8']
  matching, narrow = planned(entries, tmp_path)
  assert matching.config.model.match_fields == ('item', 'category')
  assert narrow.config.model.hidden == (8,)
  flag = '--config.model.match_fields=item,category'
  assert matching.variant.flags(1)[-1] == flag


def test_fields_of_other_sections(tmp_path):
  """As the flags of a run, which says the same in its own process."""
  entries = [
    'a=dare:data.fields=brand+price:optim.learning_rate=2e-3:model.top_k=5'
    ':attention_dims.item=3:data.item_vectors=None:eval.every_steps=0'
  ]
  shared = base.get_config()
  shared.data.fields = ('genres',)
  (run,) = plan.plan(shared, plan.parse_models(entries), 1, tmp_path)
  assert run.config.data.fields == ('brand', 'price')
  assert run.config.optim.learning_rate == 0.002
  assert run.config.model.attention_dims.item == 3
  assert run.variant.flags(1)[2:5] == [
    '--config.data.fields=brand,price',
    '--config.optim.learning_rate=2e-3',
    '--config.model.top_k=5',
  ]
  assert plan.parse_models([run.variant.entry]) == [run.variant]
  # A run of a comparison in which all models had these.
  shared.update_from_flattened_dict(
    {
      'data.fields': ('brand', 'price'),
      'optim.learning_rate': 0.002,
      'model.top_k': 5,
      'model.attention_dims.item': 3,
      'eval.every_steps': 0,
    }
  )
  assert run_config.digest(run.config) == run_config.digest(shared)
  (none,) = planned(['none=dare:data.fields=()'], tmp_path)
  assert none.config.data.fields == ()


@pytest.mark.parametrize(
  ('field', 'advice'),
  [
    ('seed=3', 'each model has the seeds from 1 to --seeds'),
    ('data.split=by_time', 'set it for all models, with --config.data.split'),
    ('data.columns.user=u', 'with --config.data.columns.user'),
    ('data.num_negatives=4', 'with --config.data.num_negatives'),
    ('data.train_positions=3+40+5', 'with --config.data.train_positions'),
  ],
)
def test_models_are_tested_on_the_same_rows(tmp_path, field, advice):
  with pytest.raises(errors.UsageError) as raised:
    planned(['dare', f'x=dare:top_k=5:{field}'], tmp_path)
  text = str(raised.value)
  assert text.startswith('--models: x: ') and text.endswith(f'{advice}.')
  assert 'decides which rows are tested' in text
  assert 'expected fields of the model, of its training or of what' in text


@pytest.mark.parametrize(
  ('entries', 'named'),
  [
    (['dear'], "model.name 'dear': .* did you mean 'dare'"),
    (['x=dear'], "--models: x: .*did you mean 'dare'"),
    (['dare', 'dare'], '--models names dare twice'),
    (['dare', 'dare=twin'], '--models names dare twice'),
    (['dare:attention_dim=8'], 'give it a label: LABEL=dare:attention_dim=8'),
    (['x=dare:attention_dim'], 'expected FIELD=VALUE'),
    (['x=dare:attention_dim=two'], 'attention_dim=two is not of the kind'),
    (['x=dare:attentiondim=2'], 'Did you mean attention_dim'),
    (['x=dare:attention_dim=0'], '--models: x: .*1 or more'),
    (['x=dare:name=twin'], 'unknown field model.name'),
    (['x=dare:model.name=twin'], 'unknown field model.name'),
    (['x=dare:data.field=a'], 'data.field. Did you mean data.fields'),
    (['x=dare:dta.fields=a'], 'Did you mean data.fields. Expected SECTION'),
    (['x=dare:optim.l2=small'], 'optim.l2=small is not of the kind'),
    (['x='], 'expected PRESET, or LABEL=PRESET'),
    (['../x=dare'], 'expected PRESET, or LABEL=PRESET'),
  ],
)
def test_bad_models_are_refused(tmp_path, entries, named):
  with pytest.raises(errors.UsageError, match=named):
    planned(entries, tmp_path)


def test_a_folder_of_other_runs_is_refused(tmp_path):
  (run,) = planned(['x=dare:attention_dim=8'], tmp_path)
  run.workdir.mkdir(parents=True)
  saved = run_config.flatten(run.config)
  (run.workdir / 'config.json').write_text(json.dumps(saved))
  # A start that failed has left no more than that, and claims nothing.
  planned(['x=dare:attention_dim=4'], tmp_path)
  (run.workdir / 'checkpoints' / 'last' / '4').mkdir(parents=True)
  planned(['x=dare:attention_dim=8'], tmp_path, seeds=3)
  with pytest.raises(
    errors.UsageError, match='choose another --output'
  ) as info:
    planned(['x=dare:attention_dim=4'], tmp_path)
  assert 'model.attention_dim=4, but the run in' in str(info.value)
