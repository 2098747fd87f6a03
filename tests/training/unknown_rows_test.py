"""Ids that training never reads: evaluation, a server and later runs agree."""

import csv
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import evaluate
from dare_jax import trained
from dare_jax import types
from dare_jax.experiments import experiment
from dare_jax.warm_start import lineage
from tests import tiny

pytestmark = pytest.mark.slow  # Trainings that go on with more.

_FIELDS = {
  'data__split': 'by_time',
  'data__val_from': 20,
  'data__test_from': 25,
  'data__columns__fields': ('shop',),
  'data__columns__context': ('page',),
  'data__unknown_rate': 0.05,
}


def _write_log(path, order=1, last=30):
  """Each value of each field is there for some days; shops and pages too."""
  rng = np.random.default_rng(0)
  lines = []
  for user in range(40):
    for now in range(last):
      for _ in range(rng.integers(1, 3)):
        item = 6 * now + int(rng.integers(30))
        ids = f'i{item},c{item // 20},s{now // 3},p{now // 4}'
        lines.append(f'u{user},{ids},{now}')
  header = 'user_id,item_id,category_id,shop,page,timestamp'
  path.parent.mkdir(exist_ok=True)
  path.write_text('\n'.join([header, *lines[::order]]) + '\n')
  return path


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Two days: the second log is longer, and numbers its ids otherwise."""
  root = tmp_path_factory.mktemp('unknown')
  _write_log(root / 'monday' / 'log.csv')
  _write_log(root / 'tuesday' / 'log.csv', order=-1, last=40)
  tiny.run(_config(root / 'monday'), root / 'first')
  return root


def _config(folder, **fields):
  return tiny.config(folder, **(_FIELDS | fields))


def _log(root):
  with (root / 'monday' / 'log.csv').open() as file:
    return list(csv.DictReader(file))


def test_unknown_rows_of_all_fields_are_trained(root):
  run = trained.load(root / 'first')
  fresh = run.experiment.init_state()
  tables = run.experiment.trainer.tables.by_id(fresh.tables['encoder'])
  names = {name.split('_')[0] for name in tables}
  assert names == {'item', 'category', 'shop', 'time'}
  for name, table in tables.items():
    if not name.startswith('time'):
      now = run.variables['tables']['encoder'][name]
      assert (np.asarray(now[1]) != np.asarray(table[1])).all(), name
  before, now = (
    params['context_tables_page']['embedding']
    for params in (fresh.params, run.variables['params'])
  )
  assert (np.asarray(before[1]) != np.asarray(now[1])).all()


def test_what_is_new_after_training_scores_as_what_never_was(root):
  """All that a test moment sees and asks, by raw value."""
  run = trained.load(root / 'first')
  late = [row for row in _log(root) if int(row['timestamp']) >= 20]
  early = [row for row in _log(root) if int(row['timestamp']) < 20]
  new = {
    name: {row[column] for row in late} - {row[column] for row in early}
    for name, column in (
      ('item', 'item_id'),
      ('category', 'category_id'),
      ('shop', 'shop'),
      ('page', 'page'),
    )
  }
  for field, values in new.items():
    assert values and set(run.ids(field, sorted(values)).tolist()) == {1}
    assert run.ids(field, ['never seen']).tolist() == [1]
  item = next(run.experiment.pipelines['test'].eval_batches(50))
  batch = item.batch

  def renamed(field, ids):
    """What a server gives that meets these values the first time."""
    raw = run.experiment.store.raw_ids(field).to_list()
    name = lambda number: (
      'never seen' if raw[number - 2] in new[field] else raw[number - 2]
    )
    flat = [name(number) for number in ids.ravel().tolist()]
    found = run.ids(field, flat).reshape(ids.shape)
    return np.where(ids == 0, 0, found)

  stored = item.stored
  asked = types.Batch(
    history=types.History(
      ids={k: renamed(k, v) for k, v in stored.history.ids.items()},
      mask=stored.history.mask,
    ),
    end=stored.end,
    targets=dataclasses.replace(
      stored.targets,
      ids={k: renamed(k, v) for k, v in stored.targets.ids.items()},
    ),
    context={k: renamed(k, v) for k, v in stored.context.items()},
  )
  for field in ('item', 'category', 'shop'):
    assert (stored.targets.ids[field] != batch.targets.ids[field]).any()
  apply = jax.jit(lambda batch: run.model.apply(run.variables, batch).logits)
  np.testing.assert_array_equal(apply(asked), apply(batch))


@pytest.fixture(scope='module')
def second(root):
  """Tuesday, from Monday; its own folder is all that is left to read."""
  folder = root / 'second'
  config = _config(
    root / 'tuesday',
    data__train_from=33,
    data__val_from=36,
    data__test_from=38,
    data__history_length=6,
    train__init_from=str(root / 'first'),
  )
  result = tiny.run(config, folder)
  return config, folder, result


def _known(run, field):
  raw = run.store.raw_ids(field).to_list()
  return {raw[i - 2] for i in np.flatnonzero(run.known[field]) if i > 1}


def test_what_the_run_before_knew_is_known(root, second):
  config, folder, _ = second
  first = trained.load(root / 'first').experiment
  both = trained.load(folder).experiment
  alone = config.copy_and_resolve_references()
  alone.train.init_from = None
  alone = experiment.load(alone)
  for field in ('item', 'category', 'shop', 'page'):
    expected = _known(first, field) | _known(alone, field)
    assert _known(both, field) == expected
    assert _known(first, field) - _known(alone, field)
    assert len(expected) < len(both.store.raw_ids(field))
  read = [
    batch.batch.history.ids['item']
    for batch in both.pipelines['test'].eval_batches(100)
  ]
  unread = np.flatnonzero(~both.known['item'])
  assert not np.isin(np.concatenate(read), unread).any()


def test_a_third_run_knows_what_the_first_did(root, second, tmp_path):
  config = second[0].copy_and_resolve_references()
  config.train.init_from = str(second[1])
  known = lineage.known_before(config, tmp_path, has_begun=False)
  third = experiment.load(config, known_before=known)
  before = trained.load(second[1]).experiment
  assert _known(third, 'item') == _known(before, 'item')


def test_a_run_can_be_read_without_those_before_it(root, second, tmp_path):
  """Its folder alone says what they knew."""
  config, folder, result = second
  copy = tmp_path / 'copy'
  shutil.copytree(folder, copy)
  told = json.loads((copy / 'config.json').read_text())
  told['train.init_from'] = str(tmp_path / 'gone')
  (copy / 'config.json').write_text(json.dumps(told))
  assert evaluate.evaluate(copy, 'test')['metrics'] == result['test']
  (copy / lineage.FILE).write_bytes(b'nothing')
  with pytest.raises(errors.UsageError, match='known_ids.npz cannot be read'):
    evaluate.evaluate(copy, 'test')
  (copy / lineage.FILE).unlink()
  with pytest.raises(errors.UsageError, match='no run there'):
    evaluate.evaluate(copy, 'test')


def test_resuming_goes_on_bit_for_bit(root, second, tmp_path):
  config, folder, _ = second
  with pytest.raises(errors.Stopped):
    tiny.run(config, tmp_path, tiny.StopAtCheck(5))
  tiny.run(config, tmp_path)
  tiny.assert_same_run(config, folder, tmp_path)
