"""A run read back predicts what the run did: every preset, plan and precision.

A new preset, plan or search is in here by being registered. Float32 presets
that can be exported are checked alike in `bundle/presets_test`, which has runs
of them, and one in each run of the tests in `trained_test`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from dare_jax import embeddings
from dare_jax import errors
from dare_jax import models
from dare_jax import trained
from dare_jax import types
from tests import read_back
from tests import tiny

_PRECISIONS: dict[str, dict[str, Any]] = {
  'dense': {'optim__tables': 'adam', 'optim__row_sparse_from': 10**6},
  'by_rows': {'optim__row_sparse_from': 1},
  'narrow_tables': {
    'optim__row_sparse_from': 1,
    'optim__table_dtype': 'bfloat16',
  },
  'narrow_compute': {'model__compute_dtype': 'bfloat16'},
  'narrow': {
    'optim__row_sparse_from': 1,
    'optim__table_dtype': 'bfloat16',
    'model__compute_dtype': 'bfloat16',
  },
  'published': {
    'model__batch_statistics': True,
    'model__two_outputs': True,
    'eval__drop_last': True,
  },
}


def _cases() -> list[Any]:
  """Every preset narrow, and with what narrows alone; every plan."""
  fields = {name: {'model__name': name} for name in models.PRESETS}
  pairs = [(name, 'narrow') for name in fields]
  pairs += [
    (name, 'dense')
    for name, preset in models.PRESETS.items()
    if preset.get('search') == 'clusters'
  ]
  pairs += [('dare', kind) for kind in _PRECISIONS]
  pairs += [('twin_v2', 'narrow_tables'), ('sdim', 'published')]
  for plan in embeddings.PLANS:
    fields[f'plan_{plan}'] = {'model__plan': plan}
    pairs.append((f'plan_{plan}', 'narrow'))
  return [
    pytest.param({**fields[name], **_PRECISIONS[kind]}, id=f'{name}-{kind}')
    for name, kind in dict.fromkeys(pairs)
  ]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('loaded')
  tiny.write_log(root / 'log.csv', num_users=30)
  return root


def _run(root, workdir, fields: dict[str, Any]) -> dict[str, Any]:
  config = tiny.config(
    root,
    **{
      'train__steps': 4,
      'eval__every_steps': 0,
      'checkpoint__every_steps': 0,
      'eval__batch_size': 25,
      'optim__learning_rate': 0.1,
      # Many clusters of few, so that they matter.
      'model__cluster_size': 3,
      'model__cluster_every_steps': 2,
      **fields,
    },
  )
  return tiny.run(config, workdir)


@pytest.mark.slow
@pytest.mark.parametrize('fields', _cases())
def test_a_run_read_back_is_the_run(root, tmp_path, fields):
  result = _run(root, tmp_path / 'run', fields)
  read_back.check(trained.load(tmp_path / 'run'), tmp_path / 'run', result)


@pytest.mark.slow
def test_clusters_are_not_left_out_in_silence(root, tmp_path):
  _run(root, tmp_path / 'run', {'model__name': 'twin_v2'})
  run = trained.load(tmp_path / 'run')
  item = next(run.experiment.pipelines['test'].eval_batches(5))
  apply = jax.jit(run.model.apply)
  expected = apply(run.variables, item.batch).logits
  history = item.batch.history.replace(row=None)
  without = item.batch.replace(history=history)
  with pytest.raises(ValueError, match='history.row is missing'):
    apply(run.variables, without)
  one = {'item': ['i1'], 'category': ['c1']}
  with pytest.raises(errors.UsageError, match='model.search=clusters'):
    run.score(one, one)
  groups = {
    name: entries[item.batch.history.row]
    for name, entries in run.variables['clusters'].items()
  }
  assert np.max(groups['rank']) > 0
  brought = history.replace(clusters=types.Clusters(**groups))
  logits = apply(run.variables, without.replace(history=brought)).logits
  np.testing.assert_allclose(logits, expected, rtol=1e-6)
