"""What no file of the published code covers, against its equations.

On random weights under the published names.
"""

from __future__ import annotations

import dataclasses
import itertools
import types as types_lib
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
import pytest

from dare_jax import models
from dare_jax.configs import taobao_official
from dare_jax.configs import tmall_official
from dare_jax.experiments import model_section
from tests.models import examples
from tests.models import official_equations
from tests.models import official_state

# Name, preset, sharing, widths, more of the state, more of the equations, plan.
_VARIANTS: tuple[Any, ...] = (
  (
    'dare',
    'dare',
    official_state.TARGET,
    official_state.UNEQUAL,
    {},
    {},
    'decoupled',
  ),
  (
    'three',
    'twin_3e',
    official_state.THREE,
    official_state.UNEQUAL,
    {},
    {},
    'three',
  ),
  (
    'four',
    'twin_4e',
    official_state.OWN,
    official_state.UNEQUAL,
    {},
    {},
    'four',
  ),
  ('twin', 'twin', official_state.ONE, official_state.EQUAL, {}, {}, 'shared'),
  (
    'no_tr',
    'twin_no_tr',
    official_state.ONE,
    official_state.EQUAL,
    {'parts': 2},
    {'target_aware': False},
    'shared',
  ),
  (
    'per_field',
    'twin_proj',
    official_state.ONE,
    official_state.EQUAL,
    {'per_field': True},
    {},
    'projected',
  ),
  (
    'concat',
    'twin_proj',
    official_state.ONE,
    official_state.EQUAL,
    official_state.JOINT_OWN,
    {},
    'projected_concat',
  ),
  (
    'concat_tied',
    'twin_proj',
    official_state.ONE,
    official_state.EQUAL,
    official_state.JOINT_TIED,
    {},
    'projected_concat_tied',
  ),
  (
    'hard',
    'twin_hard',
    official_state.ONE,
    official_state.EQUAL,
    {},
    {'hard': True},
    'shared',
  ),
  (
    'din',
    'din',
    official_state.ONE,
    official_state.EQUAL,
    {'time': False, 'network': True},
    {'time': False},
    'shared',
  ),
)


class VariantsTest(parameterized.TestCase):
  @parameterized.named_parameters(*_VARIANTS)
  @pytest.mark.quick_cases('dare', 'twin', 'concat', 'hard')
  def test_equals_the_equations(
    self, preset, shared, dims, state_options, options, plan
  ):
    state = official_state.random_state(shared, dims, **state_options)
    data = official_state.random_data((7, 7, 5, 4, 3, 6, 7, 3))
    self._check(preset, state, data, plan, options)

  def test_hard_search_with_padding(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    data = official_state.random_data((7, 1, 5, 2, 3, 6, 1, 2))
    self._check('twin_hard', state, data, 'shared', {'hard': True})

  def _check(self, preset, state, data, plan, options, aux=True):
    reference = official_equations.Published(state, **options)
    with jax.enable_x64(True):
      for changes in ({}, {'two_outputs': True}):
        module, variables = models.from_official_state_dict(
          state, preset, top_k=official_state.TOP_K, **changes
        )
        assert module.config.plan == plan
        batch = official_state.to_batch(data, np.float64)
        evaluated, output = examples.outputs(module, variables, batch)
        expected, expected_aux = reference.logits(data, train=True)
        pairs = [
          (evaluated.logits, reference.logits(data, train=False)[0]),
          (output.logits, expected),
        ]
        if aux:
          pairs.append((output.aux_logits, expected_aux))
        for found, expected in pairs:
          found = np.asarray(found)[:, 0, 0]
          np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


# Of the official configs, what no weights tell: initial values, statistics of
# the batch in evaluation, a second output, padding that fills up soft search.
_RECIPE = {
  'two_outputs': True,
  'batch_statistics': True,
  'keep_padding': True,
  'projection_init': 'official',
  'attention_init': 0.01,
  'representation_init': 0.01,
}


def _of_config(
  module: types_lib.ModuleType, preset: str, like: models.Ranker, **changes: Any
) -> models.Ranker:
  """The model of an official config, its sizes those of another model."""
  config = module.get_config(f'model={preset}')
  sizes = {
    'exact_positions': like.config.exact_positions,
    'top_k': official_state.TOP_K,
  }
  for role, field in itertools.product(
    official_state.ROLES, like.config.features
  ):
    sizes[f'{role}_dims.{field.name}'] = field.dim(role)
  if not like.config.use_time:  # The size of a table that is not there.
    for role in official_state.ROLES:
      sizes[f'{role}_dims.time'] = like.config.time.dim(role)
  sizes |= {n: getattr(like.config, n) for n in ('hidden', 'aux_hidden')}
  for name, value in (sizes | changes).items():
    config.update_from_flattened_dict({f'model.{name}': value})
  return model_section.build(
    config,
    {feature.name: feature.vocab_size for feature in like.config.content},
    num_clusters=like.config.num_clusters,
  )


class ConfigsTest(parameterized.TestCase):
  """What an official config trains is what the importer builds."""

  @parameterized.named_parameters(*_VARIANTS)
  def test_every_model(self, preset, shared, dims, state_options, _, plan):
    state = official_state.random_state(shared, dims, **state_options)
    imported, _ = models.from_official_state_dict(
      state, preset, top_k=official_state.TOP_K, **_RECIPE
    )
    is_joint = 'joint' in state_options  # Projections of another kind.
    changes = {'plan': plan} if is_joint else {}
    for module in (taobao_official, tmall_official):
      found = _of_config(module, preset, imported, **changes)
      assert found.config == imported.config

  @parameterized.parameters('dare', 'twin', 'sdim')
  def test_hard_search_by_hand(self, preset):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    hard = models.from_official_state_dict(state, 'twin', search='category')[0]
    for module in (taobao_official, tmall_official):
      found = _of_config(module, preset, hard, search='category').config
      assert (found.scorer, found.keep_padding) == (hard.config.scorer, True)
      corrected = _of_config(
        module, preset, hard, search='category', scorer='dot'
      )
      assert corrected.config.scorer == 'dot'

  def test_hard_search_without_auxiliary_head(self):
    """`sim_hard` is not published, but its parts are."""
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    without = {k: v for k, v in state.items() if 'auxiliary' not in k}
    imported, _ = models.from_official_state_dict(
      without, 'twin_hard', top_k=official_state.TOP_K, **_RECIPE
    )
    for module in (taobao_official, tmall_official):
      found = _of_config(module, 'sim_hard', imported)
      assert found.config == imported.config

  def test_what_is_not_published_is_ours(self):
    tested = {variant[1] for variant in _VARIANTS}
    ours = {
      'din_full',
      'sim_soft',
      'eta',
      'sdim',
      'twin_v2',
      'dare_match_mean',
    }
    assert {*tested, *ours, 'sim_hard'} == set(models.PRESETS)
    for preset, module in itertools.product(
      ours, (taobao_official, tmall_official)
    ):
      config = module.get_config(f'model={preset}')
      found = model_section.build(config, {'item': 9, 'category': 9})
      own = {'scorer': 'dot', 'keep_padding': True} | models.PRESETS[preset]
      own.pop('further_dim', None)  # No field of the model: widths of features.
      if own.get('match_fields') == ('all',):
        own['match_fields'] = ('item', 'category')
      assert own.items() <= dataclasses.asdict(found.config).items()


if __name__ == '__main__':
  absltest.main()
