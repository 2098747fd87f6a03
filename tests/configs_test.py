"""Every shipped config loads, is locked, and says what its fields mean."""

import importlib
import pathlib
import re
import textwrap

from absl.testing import absltest
from absl.testing import parameterized

from dare_jax import cli
from dare_jax.configs import base
from dare_jax.configs import taobao_official
from dare_jax.configs import tmall_official
from dare_jax.experiments import config_check
from dare_jax.experiments import model_section
from dare_jax.store import datasets

_NAMES = sorted(
  file.stem
  for file in cli.configs_dir().glob('*.py')
  if file.stem != '__init__'
)


class ConfigsTest(parameterized.TestCase):
  @parameterized.parameters(*_NAMES)
  def test_loads_locked_and_builds_a_model(self, name):
    module = importlib.import_module(f'dare_jax.configs.{name}')
    config = module.get_config()
    self.assertTrue(config.is_locked)
    config_check.check(config)
    model = model_section.build(config, {'item': 3, 'category': 3})
    self.assertEqual(model.config.top_k, config.model.top_k)
    self.assertIn(config.data.name, datasets.DATASETS)

  @parameterized.parameters(*_NAMES)
  def test_argument_sets_the_shorthand_fields(self, name):
    module = importlib.import_module(f'dare_jax.configs.{name}')
    config = module.get_config('model=twin,dim=24,seed=7,steps=9,length=321')
    self.assertEqual(config.model.name, 'twin')
    self.assertEqual(config.model.attention_dim, 24)
    self.assertEqual(config.model.representation_dim, 24)
    self.assertEqual(config.seed, 7)
    self.assertEqual(config.train.steps, 9)
    self.assertEqual(config.data.history_length, 321)

  @parameterized.parameters('dims=4', 'model', 'dim=')
  def test_bad_argument_is_refused(self, arg):
    with self.assertRaisesRegex(ValueError, 'dim'):
      base.apply_arg(base.get_config(), arg)

  def test_every_field_has_a_comment(self):
    text = (cli.configs_dir() / 'base.py').read_text()
    body = text[: text.index('_SHORTHAND')]
    fields = [
      line
      for line in body.splitlines()
      if re.match(r'\s+\w+\.[\w.]+ = (?!.*ConfigDict\(\)|_\w+\(\))', line)
    ]
    self.assertGreater(len(fields), 60)
    for line in fields:
      self.assertIn('  # ', line)

  def test_config_of_the_docs(self):
    """Works as it stands there, as a file of one's own."""
    root = pathlib.Path(__file__).parent.parent
    page = (root / 'docs' / 'logs.md').read_text()
    found = re.search(
      r'\n    from dare_jax.configs import .*?return config\n', page, re.S
    )
    own = {}
    exec(textwrap.dedent(found[0]), own)
    config = own['get_config']('model=twin')
    config_check.check(config)
    self.assertEqual(config.data.columns.user, 'uid')
    self.assertEqual(config.data.name, 'csv_log')
    self.assertEqual(config.model.name, 'twin')

  def test_published_order_within_a_user(self):
    """That code sorts Tmall's rows by day, and Taobao's not at all."""
    self.assertFalse(taobao_official.get_config().data.sort_by_time)
    self.assertTrue(tmall_official.get_config().data.sort_by_time)

  def test_every_dataset_has_a_config(self):
    renamed = {'synthetic_lifelong': 'synthetic'}
    for name in datasets.DATASETS:
      self.assertIn(renamed.get(name, name), _NAMES)


if __name__ == '__main__':
  absltest.main()
