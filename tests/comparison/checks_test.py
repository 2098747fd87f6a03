"""What the models of a comparison are checked for, before any of them runs."""

import pytest

from dare_jax import errors
from dare_jax.comparison import checks
from tests import tiny


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('checks')
  tiny.write_log(root / 'log.csv')
  return root


def test_models_that_fit_pass(root):
  checks.check(tiny.config(root), ['twin', 'v2=twin_v2:cluster_size=2'])


@pytest.mark.parametrize(
  ('models', 'fields', 'named'),
  [
    # Tables of a model that no memory holds.
    (
      ['dare', 'wide=dare:attention_dim=200000000'],
      {},
      '^--models: wide: training needs',
    ),
    # The data, whatever the model.
    (['dare'], {'data.min_events': 10_000}, '^(?!--models)'),
    (['dare'], {'train.init_from': '/nowhere'}, 'init_from=/nowhere: no run'),
  ],
)
def test_what_does_not_fit_is_named(root, models, fields, named):
  config = tiny.config(root)
  config.update_from_flattened_dict(fields)
  with pytest.raises(errors.UsageError, match=named):
    checks.check(config, models)
