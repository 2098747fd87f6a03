"""Every model that can be exported scores as its run, also sizes not seen.

What the run of a preset predicts when read back is checked on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dare_jax import bundle
from dare_jax import embeddings
from dare_jax import models
from dare_jax import trained
from tests import read_back
from tests import tiny
from tests.bundle import served

_PUBLISHED = {'model__batch_statistics': True, 'model__two_outputs': True}
_CASES: dict[str, dict[str, Any]] = {
  **{
    name: {'model__name': name}
    for name in models.PRESETS
    if models.PRESETS[name].get('search') != 'clusters'
  },
  **{
    # At a higher rate a plan's network dies, and all its scores tie.
    f'plan_{plan}': {'model__plan': plan, 'optim__learning_rate': 0.02}
    for plan in embeddings.PLANS
    if plan not in ('shared', 'decoupled', 'three', 'four')
  },
  'published': _PUBLISHED,
  'published_sdim': {'model__name': 'sdim', **_PUBLISHED},
  'padding': {'model__keep_padding': True},
  'hard_padding': {'model__name': 'twin_hard', 'model__keep_padding': True},
  'narrow_compute': {'model__compute_dtype': 'bfloat16'},
  'narrow_tables': {'optim__table_dtype': 'bfloat16'},
  'no_time': {'model__use_time': False},
  'interest_heads': {
    'model__interest_heads': 3,
    'optim__softmax_weight': 1.0,
    'data__in_batch_negatives': 1,
  },
  'few_positions': {'model__exact_positions': 4},
  'matches': {'model__match_fields': ('item', 'category')},
  'mean': {'model__name': 'dare', 'model__history_mean': True},
}


@pytest.fixture(scope='module')
def log(tmp_path_factory):
  root = tmp_path_factory.mktemp('presets')
  tiny.write_log(root / 'log.csv', num_users=30)
  return root


@pytest.mark.slow
@pytest.mark.parametrize('name', _CASES)
def test_scores_as_its_run(log, tmp_path, name):
  short = {'train__steps': 4, 'eval__batch_size': 25}
  result = served.train(log, tmp_path / 'run', **short, **_CASES[name])
  served.export(tmp_path / 'run', tmp_path / 'b', shapes='1x4')
  opened = bundle.open(tmp_path / 'b')
  run = trained.load(tmp_path / 'run')
  if name in models.PRESETS:
    read_back.check(run, tmp_path / 'run', result)
  rng = np.random.default_rng(0)
  histories = [served.raw(rng, n) for n in (0, 3, 20, 33)]
  candidates = [served.raw(rng, n) for n in (1, 6, 3, 4)]
  narrow = run.model.config.compute_dtype != 'float32'
  atol = 0.03 if narrow else 1e-6
  served.assert_same(opened, run, histories, candidates, atol)
  any_size = opened.of_shapes([])
  served.assert_same(any_size, run, histories, candidates, atol)
  for history, some in zip(histories[1:], candidates[1:], strict=True):
    ids, scored = (served.ids(opened, columns) for columns in (history, some))
    state = opened.encode({field: own[:-1] for field, own in ids.items()})
    state = opened.append(state, {field: own[-1] for field, own in ids.items()})
    (scores,) = opened.score([state], [scored], explain=True)
    expected = run.score(history, some)
    (whole,) = opened.score([ids], [scored], explain=True)
    alike = _found_alike(scores, whole)
    served.assert_close(scores.logit[alike], expected[alike], atol)
    assert (scores.distance <= len(ids['item'])).all()
    assert (scores.mask.sum(axis=1) <= len(ids['item'])).all()


def _found_alike(scores, others):
  """Returns the targets of the same behaviors; in others, scores must tie.

  A key that is appended may differ from an encoded one by rounding, which
  decides between equals, as those are of a network with dead units.
  """
  pair = [np.sort(some.distance, axis=1) for some in (scores, others)]
  alike = np.all(pair[0] == pair[1], axis=1)
  weights = [np.sort(some.weight, axis=1)[~alike] for some in (scores, others)]
  np.testing.assert_allclose(*weights, rtol=0, atol=1e-5)
  assert alike.mean() >= 0.5
  return alike


@pytest.mark.slow
def test_further_fields_and_context_of_a_log_of_numbers(tmp_path):
  rng = np.random.default_rng(0)
  rows = ['user,item,kind,time,brand,hour']
  for user in range(20):
    for time in range(30):
      item = rng.integers(40)
      brand = ['ü', 'b c', 'd'][item % 3]
      rows.append(f'{user},{item},{item % 7},{time},{brand},{time % 4}')
  (tmp_path / 'log.csv').write_text('\n'.join(rows) + '\n')
  columns = {
    'user': 'user',
    'item': 'item',
    'category': 'kind',
    'time': 'time',
    'fields': ('brand',),
    'context': ('hour',),
  }
  fields = {f'data__columns__{name}': x for name, x in columns.items()}
  served.train(tmp_path, tmp_path / 'run', train__steps=4, **fields)
  served.export(tmp_path / 'run', tmp_path / 'b', shapes='')
  opened = bundle.open(tmp_path / 'b')
  run = trained.load(tmp_path / 'run')
  assert opened.fields == ('item', 'category', 'brand')
  assert opened.context_fields == ('hour',)
  history = {'item': [5, '7', 8.0], 'category': [5, 0, 1]}
  history['brand'] = ['ü', 'new', None]
  some = {'item': [5, 999], 'category': [5, 1], 'brand': ['b c', 'd']}
  ids = served.ids(opened, history)
  for hour in (3, 77):
    moment = {'hour': int(opened.ids('hour', [hour])[0])}
    (scores,) = opened.score([ids], [served.ids(opened, some)], [moment])
    expected = run.score(history, some, {'hour': hour})
    served.assert_close(scores.logit, expected)
