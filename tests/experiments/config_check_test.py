"""Which values of a config's fields are refused."""

import re

from absl.testing import parameterized
import pytest

from dare_jax import errors
from dare_jax.configs import base
from dare_jax.experiments import config_check
from dare_jax.logs.builders import synthetic


def config(**fields):
  made = base.get_config()
  for name, value in fields.items():
    made.update_from_flattened_dict({name.replace('__', '.'): value})
  return made


class CheckTest(parameterized.TestCase):
  def test_the_default_is_accepted(self):
    config_check.check(config())

  @parameterized.parameters(
    ('data.history_length', 0),
    ('data.prefetch', 0),
    ('model.top_k', 0),
    ('model.context_dim', 0),
    ('model.hidden', (8, 0)),
    ('model.aux_hidden', (0,)),
    ('optim.tables', 'sgdd'),
    ('optim.schedule', 'cosine'),
    ('optim.table_dtype', 'float16'),
    ('optim.unique_rows', 'gpu'),
    ('optim.row_sparse_from', 0),
    ('optim.table_weight_decay', -0.1),
    ('train.batch_size', -1),
    ('train.log_every_steps', 0),
    ('eval.batch_size', 0),
    ('eval.every_steps', -1),
    ('checkpoint.every_steps', -5),
    ('train.steps', -1),
    ('train.epochs', 0.0),
    ('train.epochs', float('nan')),
    ('optim.learning_rate', 0.0),
    ('optim.learning_rate', -1.0),
    ('optim.table_learning_rate', -1.0),
    ('data.unknown_rate', 1.0),
    ('data.unknown_rate', -0.1),
    ('data.max_padding', 0.01),
    ('data.max_padding', 1.0),
    ('data.val_from', 'tomorrow'),
    ('data.test_from', True),
    ('seed', -1),
    ('optim.aux_weight', -1.0),
    ('optim.l2', -1.0),
    ('optim.loss_epsilon', -1e-8),
    ('model.attention_init', -1.0),
    ('model.representation_init', float('nan')),
    ('model.hash_width', 0),
    ('model.hidden', ('abc',)),
    ('model.aux_hidden', ('(a,b)',)),
    ('data.min_history', -1),
    ('data.min_events', -5),
    ('data.min_item_count', 0),
    ('data.max_train_moments', 0),
    ('data.max_malformed_share', 1.5),
    ('data.num_negatives', -1),
    ('train.epochs', float('inf')),
    ('data.name', None),
    ('train.batch_size', None),
    ('model.only_product', None),
    ('data.columns.user', None),
  )
  def test_out_of_range(self, field, value):
    made = config(**{field.replace('.', '__'): value})
    with pytest.raises(errors.UsageError) as caught:
      config_check.check(made)
    assert str(caught.value).startswith(f'{field}={value!r}: expected ')

  def test_top_k_above_the_history(self):
    made = config(model__top_k=50, data__history_length=20)
    with pytest.raises(errors.UsageError, match='top_k=50.*history_length=20'):
      config_check.check(made)

  def test_every_number_has_a_range(self):
    """A new field is given one, or is known to be checked elsewhere."""
    ranged = {
      field for _, _, fields in config_check._RANGES for field in fields
    }
    elsewhere = re.compile(
      r'model\.(attention|representation)_dim'
      r'|model\.(exact_positions|hash_bits|search_dim)$'
    )
    default = base.get_config()
    for section, fields in default.items():
      for name in fields if section != 'seed' else ():
        kind = fields.get_type(name)
        if kind not in (int, float) or name in synthetic.Spec.__annotations__:
          continue
        field = f'{section}.{name}'
        self.assertTrue(field in ranged or elsewhere.match(field), field)
