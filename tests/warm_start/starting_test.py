"""Runs that start from other runs: grown logs, other plans, narrower tables."""

import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from dare_jax import embeddings
from dare_jax import errors
from dare_jax import models
from dare_jax.checkpoints import checkpoint
from dare_jax.experiments import run_config
from dare_jax.parallel import processes
from dare_jax.runs import run as run_lib
from dare_jax.warm_start import derivation
from dare_jax.warm_start import narrowing
from dare_jax.warm_start import starting
from tests import tiny

_SHORT = {
  'train__steps': 2,
  'eval__every_steps': 2,
  'train__log_every_steps': 2,
  'model__exact_positions': 30,
}


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  """Two logs: that of a day, and a longer one in another order."""
  folder = tmp_path_factory.mktemp('growing')
  day = folder / 'day'
  day.mkdir()
  lines = tiny.write_log(day / 'log.csv').read_text().splitlines()
  later = folder / 'later'
  later.mkdir()
  new = [f'u{user},new{user % 7},c{user % 3},40' for user in range(20)]
  (later / 'log.csv').write_text(
    '\n'.join([lines[0], *reversed(lines[1:]), *new]) + '\n'
  )
  return folder


@pytest.fixture(scope='module')
def older(root):
  """Makes runs of the first log, as if trained, each once."""
  made = {}

  def make(**fields):
    key = json.dumps(fields, sort_keys=True)
    if key not in made:
      workdir = root / f'older{len(made)}'
      config = tiny.config(root / 'day', **(_SHORT | fields))
      made[key] = workdir, *_save_run(config, workdir)
    return made[key]

  return make


def _save_run(config, workdir):
  """Writes a run with random values; returns its experiment and its state."""
  run = run_lib.Run(config, workdir)
  run.close()
  state = run.experiment.init_state()
  rng = np.random.default_rng(0)

  def moved(leaf):
    noise = rng.uniform(0.05, 0.2, leaf.shape).astype(np.float32)
    return jax.device_put(np.asarray(leaf) + noise, leaf.sharding)

  parts = ('params', 'tables', 'batch_stats')
  state = dataclasses.replace(
    state, **{part: jax.tree.map(moved, getattr(state, part)) for part in parts}
  )
  flat = json.dumps(run_config.flatten(config))
  workdir.mkdir()
  (workdir / 'config.json').write_text(flat)
  saved = checkpoint.Checkpoints(workdir / 'checkpoints')
  told = {'data_fingerprint': run.experiment.store.fingerprint}
  saved.save_best(2, state, told)
  saved.close()
  return run.experiment, state


def _start(config, workdir, origin):
  run = run_lib.Run(config, workdir)
  run.close()
  older = starting.Older(run.experiment, origin)
  return run.experiment, starting.start_from(run.experiment, older)


def _rows(experiment, state, name):
  """A table by id."""
  table = np.asarray(state.tables['encoder'][name])
  tables = experiment.trainer.tables
  ids = np.arange(tables.specs[name].rows)
  return table[tables.position(name.split('_')[0], ids)]


def _by_raw_id(experiment, state, name):
  raw = experiment.store.raw_ids(name.split('_')[0])
  return dict(zip(raw, _rows(experiment, state, name)[2:], strict=True))


@pytest.mark.parametrize(
  ('before', 'now'),
  [
    (1, 4096),
    pytest.param(4096, 1, marks=pytest.mark.slow),
    pytest.param(1, 1, marks=pytest.mark.slow),
    pytest.param(4096, 4096, marks=pytest.mark.slow),
  ],
)
def test_known_ids_keep_their_rows(root, older, tmp_path, before, now):
  workdir, old, trained = older(optim__row_sparse_from=before)
  config = tiny.config(root / 'later', optim__row_sparse_from=now, **_SHORT)
  new, state = _start(config, tmp_path, workdir)
  fresh = new.init_state()
  assert set(state.tables['encoder']) == set(trained.tables['encoder'])
  for field, suffix in (('item', 'attention'), ('category', 'representation')):
    name = f'{field}_{suffix}'
    known = _by_raw_id(old, trained, name)
    found = _by_raw_id(new, state, name)
    unknown = _by_raw_id(new, fresh, name)
    assert list(known) != list(found)[: len(known)]  # Numbered otherwise.
    assert set(known) <= set(found)
    for raw, row in found.items():
      np.testing.assert_array_equal(row, known.get(raw, unknown[raw]))
    np.testing.assert_array_equal(
      _rows(new, state, name)[:2], _rows(old, trained, name)[:2]
    )
  assert {f'new{number}' for number in range(7)} <= set(
    _by_raw_id(new, state, 'item_attention')
  )
  tiny.assert_same_bits(
    (state.params, state.batch_stats), (trained.params, trained.batch_stats)
  )
  tiny.assert_same_bits(
    (state.step, state.dense_slots, state.table_slots),
    (fresh.step, fresh.dense_slots, fresh.table_slots),
  )


def test_decoupled_from_shared_computes_the_same(root, older, tmp_path):
  workdir, old, trained = older(model__name='twin')
  config = tiny.config(root / 'day', model__name='dare', **_SHORT)
  new, state = _start(config, tmp_path, workdir)
  for name, table in state.tables['encoder'].items():
    field = name.split('_')[0]
    np.testing.assert_array_equal(
      table, trained.tables['encoder'][f'{field}_shared']
    )
  assert {name.split('_')[0] for name in state.tables['encoder']} == {
    *('item', 'category', 'time')
  }
  expected = old.predict(trained, 'val').logit
  np.testing.assert_array_equal(new.predict(state, 'val').logit, expected)


def _scores(experiment, state, field, plan):
  """All scores of a field's targets with its behaviors, scaled."""
  config = experiment.trainer.model.config
  suffix = {
    side: embeddings.PLANS[plan].table_of['attention', side]
    for side in ('target', 'behavior')
  }
  targets, behaviors = (
    _rows(experiment, state, f'{field}_{own}').astype(np.float64)
    for own in suffix.values()
  )
  if field == 'time':
    return targets[:1] @ behaviors[1:].T * config.time.attention_dim**-0.5
  width = sum(feature.attention_dim for feature in config.content)
  return targets[1:] @ behaviors[1:].T * width**-0.5


@pytest.mark.slow
@pytest.mark.parametrize(
  ('before', 'now'), [('shared', 'decoupled'), ('four', 'four')]
)
def test_narrower_scores_are_the_best_of_their_rank(
  root, older, tmp_path, before, now
):
  workdir, old, trained = older(model__plan=before, optim__row_sparse_from=1)
  config = tiny.config(
    root / 'day',
    model__plan=now,
    model__attention_dim=2,
    model__attention_dims__category=4,
    optim__row_sparse_from=1,
    **_SHORT,
  )
  new, state = _start(config, tmp_path, workdir)
  for field, rank in (('item', 2), ('category', 4)):
    scores = _scores(old, trained, field, before)
    u, values, v = np.linalg.svd(scores, full_matrices=False)
    best = u[:, :rank] * values[:rank] @ v[:rank]
    found = _scores(new, state, field, now)
    # Tables are float32, and the squares of their singular values matter.
    np.testing.assert_allclose(found, best, atol=3e-5 * abs(scores).max())
    if rank < 4:
      assert abs(found - scores).max() > 1e-3 * abs(scores).max()
  np.testing.assert_allclose(
    _scores(new, state, 'time', now),
    _scores(old, trained, 'time', before),
    atol=1e-6,
  )


def test_narrowing_maps_of_two_tables():
  rng = np.random.default_rng(0)
  left, right = rng.normal(size=(2, 50, 6)) * [3, 2, 1, 1, 0.5, 0]
  for width in range(1, 7):
    one, other = narrowing.maps(left.T @ left, right.T @ right, width)
    u, values, v = np.linalg.svd(left @ right.T)
    best = u[:, :width] * values[:width] @ v[:width]
    np.testing.assert_allclose(left @ one @ (right @ other).T, best, atol=1e-9)


def _refused(root, tmp_path, origin, **fields):
  config = tiny.config(root / 'day', **(_SHORT | fields))
  with pytest.raises(errors.UsageError) as caught:
    _start(config, tmp_path, origin)
  assert len(str(caught.value).splitlines()) == 1
  return str(caught.value)


@pytest.mark.parametrize(
  ('fields', 'line'),
  [
    ({'model__hidden': (6,)}, 'params/head.*must be the same'),
    ({'model__aux_head': False}, 'it has params/aux.*no place'),
    ({'model__name': 'twin'}, 'plan shared cannot start from.*decoupled'),
    ({'model__representation_dim': 5}, 'representation vectors 5 wide'),
    ({'model__attention_dim': 5}, 'attention vectors 5 wide.*only 4'),
    ({'model__exact_positions': 9}, 'model.exact_positions=9'),
    ({'model__interest_heads': 2}, 'model.interest_heads=2, but the run'),
    ({'model__match_fields': ('item',)}, 'the heads depend on it'),
    ({'model__history_mean': True}, 'the heads depend on it'),
    ({'model__use_time': False}, 'model.use_time=False'),
    ({'model__scorer': 'network', 'model__attention_dim': 2}, 'inner products'),
  ],
)
def test_what_does_not_fit_is_refused(root, older, tmp_path, fields, line):
  told = _refused(
    root, tmp_path, older(optim__row_sparse_from=4096)[0], **fields
  )
  assert re.search(line, told), told


def test_real_time_must_be_the_same():
  sizes = {'item': 9, 'category': 5}
  old, new = (
    models.build('dare', vocab_sizes=sizes, real_time=parts).config
    for parts in ((), ('gap',))
  )
  with pytest.raises(errors.UsageError, match='the heads depend on it'):
    derivation.check_widths(old, new)


def test_no_run_or_checkpoint_or_data_there(root, older, tmp_path):
  assert 'no run there' in _refused(root, tmp_path / 'a', tmp_path / 'none')
  workdir = older(optim__row_sparse_from=4096)[0]
  bare = tmp_path / 'bare'
  bare.mkdir()
  shutil.copy(workdir / 'config.json', bare)
  assert 'no checkpoint yet' in _refused(root, tmp_path / 'b', bare)
  moved = tmp_path / 'moved'
  shutil.copytree(workdir, moved)
  config = json.loads((moved / 'config.json').read_text())
  config['data.data_dir'] = str(tmp_path / 'gone')
  (moved / 'config.json').write_text(json.dumps(config))
  assert 'is not in' in _refused(root, tmp_path / 'c', moved)


@pytest.mark.parametrize('part', ['_read_config', '_open_store', 'rows'])
def test_what_another_process_lacks_stops_all(
  root, older, tmp_path, monkeypatch, part
):
  """Each host may have its own copy of the data, and one have lost it."""
  read = getattr(starting.Older, part)

  def read_as_another_fails(*args):
    texts = lambda text: [text, 'gone there']
    monkeypatch.setattr(processes, '_gather_texts', texts)
    return read(*args)

  monkeypatch.setattr(starting.Older, part, read_as_another_fails)
  config = tiny.config(root / 'day', **_SHORT)
  with pytest.raises(errors.UsageError, match='^gone there$'):
    _start(config, tmp_path, older(optim__row_sparse_from=4096)[0])


def test_ids_of_another_kind_are_refused(older, tmp_path):
  log = tiny.write_log(tmp_path / 'log.csv')
  log.write_text(re.sub(r',i(\d)', r',other\1', log.read_text()))
  config = tiny.config(tmp_path, **_SHORT)
  with pytest.raises(errors.UsageError, match='knew no item of this log'):
    _start(config, tmp_path / 'run', older(optim__row_sparse_from=4096)[0])


@pytest.mark.slow
def test_a_run_that_resumes_does_not_look_back(root, older, tmp_path, capsys):
  origin = tmp_path / 'origin'
  shutil.copytree(older(optim__row_sparse_from=4096)[0], origin)
  fields = _SHORT | {'train__steps': 6, 'train__init_from': str(origin)}
  config = tiny.config(root / 'later', **fields)
  tiny.run(config, tmp_path / 'straight')
  told = capsys.readouterr().out
  assert f'starting from {origin}, step 2; rows kept: ' in told
  assert '102 of 109 item' in told
  with pytest.raises(errors.Stopped):
    tiny.run(config, tmp_path / 'stopped', tiny.StopAtCheck(3))
  shutil.rmtree(origin)
  tiny.run(config, tmp_path / 'stopped')
  tiny.assert_same_run(config, tmp_path / 'straight', tmp_path / 'stopped')
  other = tiny.config(root / 'later', **(_SHORT | {'train__steps': 6}))
  with pytest.raises(errors.UsageError, match='train.init_from=None, but'):
    tiny.run(other, tmp_path / 'stopped')


@pytest.mark.slow
def test_a_day_of_new_events(tmp_path):
  """As in docs/training.md: the second day trains on its own events alone."""
  day = tmp_path / 'day'
  both = tmp_path / 'both'
  for folder in (day, both):
    folder.mkdir()
  header, *lines = (
    tiny.write_log(both / 'log.csv', 300).read_text().splitlines()
  )
  early = [line for line in lines if int(line.rsplit(',', 1)[1]) < 24]
  (day / 'log.csv').write_text('\n'.join([header, *early]) + '\n')
  common = {
    'data__split': 'by_time',
    'train__log_every_steps': 50,
    'eval__every_steps': 50,
    'eval__batch_size': 500,
  }
  first = tiny.config(
    day, train__steps=100, data__val_from=20, data__test_from=22, **common
  )
  tiny.run(first, tmp_path / 'first')
  common |= {'train__steps': 40, 'data__val_from': 27, 'data__test_from': 28}
  aucs = {
    origin: tiny.run(
      tiny.config(both, train__init_from=origin, data__train_from=24, **common),
      tmp_path / str(origin and 'second'),
    )['test']['auc']
    for origin in (str(tmp_path / 'first'), None)
  }
  daily, scratch = aucs.values()
  assert daily > scratch
  assert daily > 0.7


def test_leaves_come_in_their_order(older):
  workdir, experiment, trained = older(optim__row_sparse_from=4096)
  made = checkpoint.Checkpoints(workdir / 'checkpoints')
  found = list(
    made.read(
      made.best_step, experiment.abstract_state(), experiment.store.fingerprint
    )
  )
  made.close()
  expected = jax.tree.leaves_with_path(trained)
  assert [path for path, _ in found] == [path for path, _ in expected]
  tiny.assert_same_bits(
    [leaf for _, leaf in found], [leaf for _, leaf in expected]
  )
