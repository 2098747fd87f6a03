"""Reading a published state dict: sizes, choices, and what is refused."""

from __future__ import annotations

import functools
import itertools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import embeddings
from dare_jax import models
from tests.models import examples
from tests.models import official_state


class TablesTest(parameterized.TestCase):
  def test_rows_keep_their_numbers(self):
    state = official_state.random_state(
      official_state.TARGET, official_state.UNEQUAL
    )
    _, variables = models.from_official_state_dict(state, 'dare')
    tables = variables['tables']['encoder']
    assert len(tables) == 6
    for field, role in itertools.product(
      official_state.FIELDS, official_state.ROLES
    ):
      np.testing.assert_array_equal(
        tables[f'{field}_{role}'],
        state[official_state.table(field, role, 'behavior')].astype(np.float32),
      )

  @parameterized.named_parameters(
    ('published', 2000, 1871),
    ('some_to_spare', 140, 11),
    ('one_to_spare', 130, 1),
    ('none_to_spare', 129, 128),
    ('extract', 13, 12),
  )
  def test_positions_read_the_row_of_their_distance(self, rows, exact):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    for use in official_state.OWN:
      state[official_state.table('time', *use)] = np.zeros((rows, 2))
    module, variables = models.from_official_state_dict(state, 'twin')
    config = module.config
    assert config.exact_positions == exact
    assert config.time.vocab_size == rows
    assert variables['tables']['encoder']['time_shared'].shape == (rows, 2)
    np.testing.assert_array_equal(
      embeddings.position_ids(exact, exact), np.arange(exact + 1)
    )
    if rows > 129:
      assert embeddings.num_position_ids(exact) == rows

  def test_sizes_are_those_of_the_arrays(self):
    state = official_state.random_state(
      official_state.TARGET, official_state.UNEQUAL
    )
    module, variables = models.from_official_state_dict(
      state, 'dare', top_k=official_state.TOP_K
    )
    config = module.config
    assert (config.hidden, config.aux_hidden) == ((7, 5), (6,))
    for feature in (*config.content, config.time):
      assert feature.vocab_size == official_state.ROWS[feature.name]
      for role in official_state.ROLES:
        assert feature.dim(role) == official_state.UNEQUAL[role][feature.name]
    batch = official_state.to_batch(
      official_state.random_data((7, 5)), np.float32
    )
    shapes = jax.eval_shape(module.init, jax.random.key(0), batch)
    assert jax.tree.structure(shapes) == jax.tree.structure(variables)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)


class OptionsTest(parameterized.TestCase):
  def test_names_of_data_parallel(self):
    state = official_state.state('dare')
    plain = models.from_official_state_dict(state, 'dare')
    wrapped = {f'module.{name}': value for name, value in state.items()}
    found = models.from_official_state_dict(wrapped, 'dare')
    assert found[0].config == plain[0].config
    jax.tree.map(np.testing.assert_array_equal, found[1], plain[1])

  def test_hard_search_as_published_or_corrected(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    build = functools.partial(models.from_official_state_dict, state)
    config = build('twin_hard')[0].config
    assert (config.scorer, config.keep_padding) == ('dot_time_twice', True)
    assert build('twin', search='category')[0].config == config
    config = build('twin_hard', scorer='dot', keep_padding=False)[0].config
    assert (config.scorer, config.keep_padding) == ('dot', False)
    assert not build('twin')[0].config.keep_padding

  def test_none_is_no_override(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    build = functools.partial(models.from_official_state_dict, state)
    found = build('twin_hard', scorer=None, plan=None, top_k=None)
    assert found[0].config == build('twin_hard')[0].config

  def test_without_auxiliary_head(self):
    state = official_state.random_state(
      official_state.TARGET, official_state.EQUAL
    )
    dropped = models.from_official_state_dict(state, 'dare', aux_head=False)
    without = {k: v for k, v in state.items() if 'auxiliary' not in k}
    found = models.from_official_state_dict(without, 'dare')
    for module, variables in (dropped, found):
      assert not module.config.aux_head
      assert 'aux' not in variables['params']

  def test_a_shared_table_for_each_role(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    data = official_state.to_batch(
      official_state.random_data((7, 5, 4)), np.float32
    )
    logits = []
    for plan in ('shared', 'decoupled', 'four'):
      module, variables = models.from_official_state_dict(
        state, 'twin', plan=plan, top_k=official_state.TOP_K
      )
      logits.append(examples.predict(module, variables, data))
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])

  def test_tied_maps_apart(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL, **official_state.JOINT_TIED
    )
    module, variables = models.from_official_state_dict(
      state, 'twin_proj', plan='projected_concat'
    )
    assert module.config.plan == 'projected_concat'
    assert len(variables['params']['encoder']) == 4


class ErrorsTest(parameterized.TestCase):
  def _raises(self, message, state, model, **overrides):
    with self.assertRaisesRegex(ValueError, message):
      models.from_official_state_dict(state, model, **overrides)

  @parameterized.named_parameters(
    ('dense_bias', 'main_mlp.3.bias', r'expected \[5\]'),
    ('statistics', 'auxiliary_mlp.0.running_var', r'expected \[36\]'),
    (
      'table',
      'item_id_embedding_layer_for_representation_of_behavior.weight',
      r'expected \[30, 5\]',
    ),
  )
  def test_missing(self, key, expected):
    state = official_state.random_state(
      official_state.OWN, official_state.UNEQUAL
    )
    del state[key]
    self._raises(f'lacks {key!r}: {expected}', state, 'twin_4e')

  def test_missing_scores(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL, time=False
    )
    self._raises(
      r"lacks 'attention_model.main_model.0.weight': expected \[36, 28\]",
      state,
      'din',
    )

  def test_missing_maps(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    self._raises(
      "lacks 'mlp_for_item_attention_of_target.weight'", state, 'twin_proj'
    )

  def test_missing_head(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    state = {k: v for k, v in state.items() if not k.startswith('main_mlp')}
    self._raises('lacks .* main_mlp.1.weight', state, 'twin')

  @parameterized.named_parameters(
    ('another_model', 'mlp_for_item_attention_of_target.weight', (4, 4)),
    ('typing', 'main_mlp.0.weigth', (27,)),
  )
  def test_unexpected(self, key, shape):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    ) | {key: np.zeros(shape)}
    self._raises(f'unexpected {key!r}', state, 'twin')

  @parameterized.named_parameters(
    ('norm', 'main_mlp.0.weight', (18,), r'\[27\]'),
    ('slope', 'main_mlp.2.weight', (7,), r'\[1\]'),
    ('outputs', 'main_mlp.5.weight', (1, 5), r'\[2, 5\]'),
    (
      'table',
      'item_id_embedding_layer_for_attention_of_target.weight',
      (30,),
      r'\[rows, attention_dim\]',
    ),
  )
  def test_misshaped(self, key, shape, expected):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    ) | {key: np.zeros(shape)}
    self._raises(f'{key!r} has shape .*: expected {expected}', state, 'twin')

  def test_tables_of_another_model(self):
    state = official_state.random_state(
      official_state.TARGET, official_state.EQUAL
    )
    self._raises("representation.*differs from 'item_id_emb", state, 'twin')

  def test_features_of_another_model(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL, parts=2
    )
    self._raises(
      r"'main_mlp.0.weight' has shape \[18\]: expected \[27\]", state, 'twin'
    )

  def test_choices_without_weights(self):
    state = official_state.random_state(
      official_state.ONE, official_state.EQUAL
    )
    self._raises(
      'no parameter for .*directions', state, 'twin', search='simhash'
    )

  @parameterized.named_parameters(
    ('not_published', 'eta', {}, "'eta': expected one of dare, din"),
    ('size', 'twin', {'hidden': (3,)}, 'hidden is read from the arrays'),
    ('option', 'twin', {'topk': 3}, "did you mean 'top_k'"),
    ('plan', 'twin', {'plan': 'sharde'}, "did you mean 'shared'"),
  )
  def test_bad_calls(self, model, overrides, message):
    self._raises(
      message,
      official_state.random_state(official_state.ONE, official_state.EQUAL),
      model,
      **overrides,
    )


if __name__ == '__main__':
  absltest.main()
