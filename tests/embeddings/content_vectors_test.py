"""Given vectors in the encoder, and in models of every plan and search."""

import jax
import numpy as np
import pytest

from dare_jax import embeddings
from dare_jax import models
from dare_jax import search
from dare_jax import types
from dare_jax.configs import base
from dare_jax.embeddings import content_vectors
from dare_jax.embeddings import scaled_rows
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import given_tables
from dare_jax.training import optimizers
from dare_jax.training import options as train_options
from tests.models import examples

_WIDTH, _ROWS = 6, 20
_VOCAB = {'item': 12, 'category': 5, 'item_vector': _ROWS}


def _table() -> np.ndarray:
  table = np.random.default_rng(0).normal(size=(_ROWS, _WIDTH))
  table[:2] = 0
  return table.astype(np.float32)


def _model(**fields) -> models.Ranker:
  vectors = fields.pop('vectors', embeddings.GivenVectors(_WIDTH))
  return models.build(
    fields.pop('name', 'dare'),
    vocab_sizes=_VOCAB,
    attention_dim=4,
    representation_dim=4,
    top_k=3,
    num_clusters=8,
    vectors=vectors,
    **fields,
  )


def _batch(seed: int = 0) -> types.Batch:
  rng = np.random.default_rng(seed)
  ids = lambda shape: {
    field: rng.integers(1, rows, shape).astype(np.int32)
    for field, rows in _VOCAB.items()
  }
  shape = (2, 1, 3)
  return types.Batch(
    history=types.History(ids=ids((2, 7)), mask=np.ones((2, 7), bool)),
    end=np.full((2, 1), 7, np.int32),
    targets=types.Targets(
      ids=ids(shape),
      label=np.zeros(shape, np.float32),
      weight=np.ones(shape, np.float32),
    ),
  )


def _variables(model: models.Ranker) -> dict:
  variables = examples.make_variables(model, _batch())
  tables = {**variables['tables']['encoder'], 'item_vectors': _table()}
  return {**variables, 'tables': {'encoder': tables}}


@pytest.mark.parametrize('count', [_ROWS - 1, _ROWS, 3 * _ROWS])
def test_rows_are_mapped_alike_before_and_after_they_are_read(count):
  """Few ids are read first, many are read from the mapped table."""
  module = content_vectors.VectorMap(dim=3, std=0.5)
  ids = np.random.default_rng(1).integers(0, _ROWS, count)
  params = module.init(jax.random.key(0), _table(), ids)
  kernel = params['params']['Dense_0']['kernel']
  found = module.apply(params, _table(), ids)
  np.testing.assert_allclose(found, _table()[ids] @ kernel, atol=1e-6)
  whole = scaled_rows.ScaledRows(
    np.ones((_ROWS, _WIDTH), np.int8), np.arange(_ROWS, dtype=np.float32)
  )
  narrow = module.apply(params, whole, ids)
  expected = ids[:, None] * np.asarray(kernel).sum(0)[None]
  np.testing.assert_allclose(narrow, expected, rtol=1e-5, atol=1e-5)


def test_a_fresh_map_makes_vectors_of_the_size_of_a_fresh_table():
  table = _table()[2:]
  table = table / np.linalg.norm(table, axis=1, keepdims=True)
  module = content_vectors.VectorMap(dim=2000, std=0.5)
  ids = np.arange(len(table))
  found = module.apply(module.init(jax.random.key(0), table, ids), table, ids)
  np.testing.assert_allclose(np.std(found, axis=1), 0.5, rtol=0.1)


@pytest.mark.parametrize(
  'plan', ['shared', 'decoupled', 'four', 'projected', 'projected_concat']
)
@pytest.mark.quick_cases('shared', 'projected_concat')
def test_keys_and_values_hold_the_vectors_under_every_plan(plan):
  """An item without a row of its own is told apart by its vector alone."""
  model = _model(plan=plan)
  variables = _variables(model)
  assert 'item_vectors' in variables['tables']['encoder']
  batch = _batch()
  unknown = dict.fromkeys(('item', 'category'), np.ones((1, 4), np.int32))
  past = {**unknown, 'item_vector': np.array([[1, 5, 6, 5]])}
  history = types.History(ids=past, mask=np.ones((1, 4), bool))
  keys = np.asarray(examples.call(model, variables, 'encode_history', history))
  np.testing.assert_array_equal(keys[0, 1], keys[0, 3])
  assert np.abs(keys[0, 1] - keys[0, 2]).max() > 1e-3
  assert np.abs(keys[0, 1] - keys[0, 0]).max() > 1e-3
  logits = examples.predict(model, variables, batch)
  other = _table()
  other[2:] = other[2:][::-1]
  tables = {**variables['tables']['encoder'], 'item_vectors': other}
  changed = {**variables, 'tables': {'encoder': tables}}
  moved = np.abs(logits - examples.predict(model, changed, batch))
  assert moved.max() > 1e-4


@pytest.mark.parametrize('roles', [(role,) for role in embeddings.ROLES])
def test_a_role_that_does_not_read_them_has_no_place_for_them(roles):
  vectors = embeddings.GivenVectors(_WIDTH, roles)
  model, plain = _model(vectors=vectors), _model(vectors=None)
  found = model.config.content[-1]
  for role in embeddings.ROLES:
    assert found.dim(role) == (4 if role in roles else 0)
  params = _variables(model)['params']['encoder']
  assert set(params) == {f'vector_map_{role}' for role in roles}
  assert plain.config.content[-1].attention_dim == 4  # A field like others.


@pytest.mark.parametrize('name', search.SEARCHES)
def test_every_search_runs_with_vectors(name):
  model = _model(search=name)
  assert np.isfinite(examples.predict(model, _variables(model), _batch())).all()


def test_widths_of_the_vectors_part_can_be_set():
  model = _model(
    attention_dims={'item_vector': 9}, representation_dims={'item_vector': 5}
  )
  feature = model.config.content[-1]
  assert (feature.attention_dim, feature.representation_dim) == (9, 5)
  _variables(model)


@pytest.mark.parametrize(
  ('fields', 'named'),
  [
    ({'width': 0}, '0 wide'),
    ({'width': 2, 'roles': ()}, 'one or both of attention, representation'),
    ({'width': 2, 'roles': ('search',)}, 'one or both'),
  ],
)
def test_bad_choices_are_refused(fields, named):
  with pytest.raises(ValueError, match=named):
    embeddings.GivenVectors(**fields)


@pytest.mark.parametrize('row_sparse_from', [1, 100])
def test_a_stored_table_has_the_vectors_by_id(row_sparse_from):
  section = base.get_config().optim
  section.row_sparse_from = row_sparse_from
  options = train_options.of_section(section)
  tables = optimizers.table_set(_model().config, options)
  assert tables.specs['item_vectors'].split == (row_sparse_from == 1)
  names = optimizers.trained_set(_model().config, tables).specs
  assert 'item_vectors' not in names
  tuned = _model(vectors=embeddings.GivenVectors(_WIDTH, tuned=True)).config
  assert 'item_vectors' in optimizers.trained_set(tuned, tables).specs
  vectors = _table()[2:]
  stored = given_tables.load(tables, mesh_lib.make(), vectors)
  found = tables.by_id({'item_vectors': stored})['item_vectors']
  np.testing.assert_array_equal(found, _table())
