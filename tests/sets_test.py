"""Runs on a log whose items have sets: trained, resumed, served, gone on from.

The slow twin of a step takes the sets for plain values, and gives the gradient
of a set's row to its members by hand.
"""

import dataclasses

import jax
import numpy as np
import polars as pl
import pytest

from dare_jax import bundle
from dare_jax import errors
from dare_jax import evaluate
from dare_jax import predict
from dare_jax import prepare
from dare_jax import trained
from dare_jax.experiments import experiment
from dare_jax.runs import run as run_lib
from dare_jax.runs import saved_run
from dare_jax.store import set_members
from dare_jax.training import state_parts
from dare_jax.warm_start import starting
from tests import tiny
from tests.bundle import served

_FIELDS = {
  'data__columns__fields': ('genres',),
  'data__columns__sets': ('genres',),
}
_PAST = {
  'item': ['i5', 'i16', 'i27'],
  'category': ['c5', 'c6', 'c7'],
  'genres': ['g5|h0', 'h1|g6', ''],
}
_SOME = {
  'item': ['i5', 'i8', 'i33', 'new'],
  'category': ['c5'] * 4,
  'genres': ['h0|g5', ['g8', 'h1'], '', 'g9|nothing known'],
}


def _genres(number: int) -> str:
  if number % 30 == 3:
    return ''
  parts = [f'g{number % 10}', f'h{number % 3}', f'g{number % 4}']
  return '|'.join(parts[: 1 + number % 3 + number % 2])


def _write_log(path, name='g'):
  """Writes the tiny log with genres; of another name, other ones."""
  tiny.write_log(path)
  log = pl.read_csv(path)
  numbers = log['item_id'].str.slice(1).cast(pl.Int64)
  genres = [_genres(number).replace('g', name) for number in numbers]
  log.with_columns(genres=pl.Series(genres)).write_csv(path)


def _config(root, **fields):
  return tiny.config(root, **(_FIELDS | fields))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The folder of the log."""
  folder = tmp_path_factory.mktemp('sets')
  _write_log(folder / 'log.csv')
  return folder


@pytest.fixture(scope='module')
def root(folder):
  """The folder of the log and of a run."""
  tiny.run(_config(folder, optim__learning_rate=0.1), folder / 'run')
  return folder


@pytest.fixture(scope='module')
def run(root):
  return trained.load(root / 'run')


def _table(state, name='genres_attention'):
  return np.asarray(state.tables['encoder'][name])


def _means(members: set_members.SetMembers, table: np.ndarray) -> np.ndarray:
  starts = zip(members.first, members.first[1:], strict=False)
  return np.stack([table[members.member[a:b]].mean(axis=0) for a, b in starts])


@pytest.mark.slow
def test_the_model_reads_the_means_of_members(root, run):
  saved = saved_run.restore(root / 'run')
  members = saved.experiment.sets['genres']
  tables = run.variables['tables']['encoder']
  for name in ('genres_attention', 'genres_representation'):
    table = _table(saved.state, name)
    assert table.shape == (members.num_members, 4)
    np.testing.assert_allclose(tables[name], _means(members, table), atol=1e-6)
  assert evaluate.evaluate(root / 'run')['metrics']['auc'] > 0.5


@pytest.mark.parametrize('many', [False, True])
@pytest.mark.quick_cases('False')
def test_gradients_go_to_the_members(folder, many):
  """By a step of gradient descent of either, from equal vectors."""
  fields = {
    'optim__tables': 'sgd',
    'optim__row_sparse_from': 8 if many else 4096,
    'data__unknown_rate': 0.0,
  }
  of_sets = experiment.load(_config(folder, **fields))
  plain = experiment.load(_config(folder, **fields, data__columns__sets=()))
  raw = of_sets.store.raw_ids('genres').to_list()
  order = np.array([0, 1, *(2 + raw.index(_sorted(n)) for n in _raw(plain))])
  members = of_sets.sets['genres']
  state = of_sets.init_state()
  other = dataclasses.replace(plain.init_state(), params=_copy(state.params))
  tables = {}
  position = plain.trainer.tables.position
  for name, table in other.tables['encoder'].items():
    own = _table(state, name)
    if name.startswith('genres'):
      stored = np.zeros(table.shape, np.float32)
      stored[position('genres', np.arange(len(order)))] = _means(members, own)[
        order
      ]
      own = stored
    tables[name] = jax.device_put(own, table.sharding)
  other = dataclasses.replace(other, tables={'encoder': tables})
  before, pooled = (jax.device_get(x.tables['encoder']) for x in (state, other))
  moved, loss = _step(of_sets, state)
  twin, expected = _step(plain, other)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  for name in ('genres_attention', 'genres_representation'):
    change = (_table(twin, name) - pooled[name])[
      position('genres', np.arange(len(order)))
    ]
    wanted = np.zeros_like(before[name])
    for own, one in zip(change, order, strict=True):
      parts = members.member[members.first[one] : members.first[one + 1]]
      for part in parts:
        wanted[part] += own / len(parts)
    assert np.abs(wanted).max() > 1e-6
    np.testing.assert_allclose(
      _table(moved, name) - before[name], wanted, atol=2e-7
    )


def _raw(parts):
  """The names of all values of a log."""
  return parts.store.raw_ids('genres').to_list()


def _sorted(name):
  return '|'.join(sorted({*name.split('|')} - {''}))


def _copy(tree):
  return jax.tree.map(lambda x: x.copy(), tree)


def _step(parts, state):
  with parts.train_batches(0) as stream:
    fed = stream.next()
  return parts.trainer.train_step(state, fed.batch)


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run(root, tmp_path):
  """What sets are made of is not in checkpoints."""
  made = _config(root, optim__learning_rate=0.1)
  with pytest.raises(errors.Stopped):
    tiny.run(made, tmp_path / 'run', tiny.StopAtCheck(4))
  tiny.run(made, tmp_path / 'run')
  tiny.assert_same_run(made, root / 'run', tmp_path / 'run')
  state, _ = tiny.restore(made, tmp_path / 'run')
  assert not state_parts.members(state)


@pytest.mark.slow
def test_raw_sets_in_any_order(run):
  store = run.experiment.store
  assert store.sets == {'genres': '|'}
  ids = run.ids('genres', ['h0|g5', 'g5|h0|h0', ['g5', 'h0'], 'g5|none', None])
  assert ids[0] == ids[1] == ids[2] > 1
  assert ids[3] == ids[4] == 1  # A combination that the log has not.
  one = {'item': ['i5'], 'category': ['c5']}
  logits = [
    run.score(_PAST, {**one, 'genres': [genres]})
    for genres in ('g5|h0', ['h0', 'g5'], 'g8|h1')
  ]
  assert logits[0] == logits[1] != logits[2]


def test_what_is_said_of_sets(folder):
  card = prepare.prepare(_config(folder))
  assert 'members of genres:' in card and '14, in sets of 2' in card
  assert 'look like several' not in card


def test_a_set_that_training_never_reads_is_the_mean_of_what_it_knows(folder):
  """By the members' ids, whether their sets are known or not."""
  parts = experiment.load(_config(folder))
  members = set_members.of_store(parts.store)['genres']
  raw = _raw(parts)
  read = np.array([True, True, *('h1' not in name for name in raw)])
  known = members.in_sets(read)
  made = members.of_known(known)
  names = ['?', '?', *members.raw.to_list()]
  for number, name in enumerate(raw, start=2):
    own = made.member[made.first[number] : made.first[number + 1]]
    wanted = {*name.split('|')} - {'h1'} or {'?'}
    assert {names[one] for one in own} == wanted
  alone = [name in ('h1',) for name in raw]
  assert (~made.are_known()[2:] == alone).all()


def _bulk(folder, request):
  """The logits of the rows of `_SOME` after a user's whole history."""
  some = [g if isinstance(g, str) else '|'.join(g) for g in _SOME['genres']]
  rows = pl.DataFrame(
    {
      'user_id': ['u3'] * 4,
      'item_id': _SOME['item'],
      'category_id': _SOME['category'],
      'genres': some,
    }
  )
  rows.write_csv(folder / 'in.csv')
  lists = rows.with_columns(pl.col('genres').str.split('|'))
  lists.write_parquet(folder / 'in.parquet')
  found = []
  for kind in ('csv', 'parquet'):
    out = str(folder / f'out_{len(request)}.{kind}')
    predict.predict(predict.Request(str(folder / f'in.{kind}'), out, **request))
    read = pl.read_csv if kind == 'csv' else pl.read_parquet
    found.append(read(out)['logit'].to_numpy())
  np.testing.assert_allclose(*found, atol=1e-6)
  return found[0]


@pytest.mark.slow
def test_a_bundle_and_bulk_scores_are_those_of_the_run(root, run, tmp_path):
  served.export(root / 'run', tmp_path / 'bundle', shapes='1x4')
  opened = bundle.open(tmp_path / 'bundle')
  assert opened.sets == {'genres': '|'}
  past, some = (
    {field: opened.ids(field, raw) for field, raw in columns.items()}
    for columns in (_PAST, _SOME)
  )
  for field, ids in some.items():
    np.testing.assert_array_equal(ids, run.ids(field, _SOME[field]))
  (found,) = opened.score([past], [some])
  np.testing.assert_allclose(found.logit, run.score(_PAST, _SOME), atol=1e-6)
  by_run = _bulk(tmp_path, {'workdir': str(root / 'run')})
  request = {
    'bundle': str(tmp_path / 'bundle'),
    'history': str(root / 'log.csv'),
    'data_dir': str(tmp_path / 'data'),
  }
  np.testing.assert_allclose(_bulk(tmp_path, request), by_run, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields',
  [
    {'model__plan': 'shared', 'optim__balance_gradients': True},
    {'model__plan': 'four', 'optim__row_sparse_from': 8},
    {
      'model__plan': 'projected_concat_tied',
      'model__match_fields': ('genres',),
    },
    {'model__plan': 'shared', 'train__observe_gradients': True},
  ],
)
def test_other_plans_and_what_else_reads_tables(root, tmp_path, fields):
  tiny.run(_config(root, train__steps=3, **fields), tmp_path / 'run')
  saved = saved_run.restore(tmp_path / 'run', 'last')
  tables = saved.variables()['tables']['encoder']
  members = saved.experiment.sets['genres']
  names = [name for name in tables if name.startswith('genres')]
  for name in names:
    wanted = _means(members, _table(saved.state, name))
    np.testing.assert_allclose(tables[name], wanted, atol=1e-6)
  assert names


@pytest.mark.slow
def test_a_member_keeps_its_row(root, run, tmp_path):
  """In a run that goes on with other sets, of which some members are known."""
  _write_log(tmp_path / 'log.csv', name='k')
  lines = (root / 'log.csv').read_text().splitlines()[1:]
  newer = (tmp_path / 'log.csv').read_text() + '\n'.join(lines[:400]) + '\n'
  (tmp_path / 'log.csv').write_text(newer)
  made = _config(tmp_path, train__init_from=str(root / 'run'))
  opened = run_lib.Run(made, tmp_path / 'run')
  opened.close()
  older = starting.Older(opened.experiment, root / 'run')
  state = starting.start_from(opened.experiment, older)
  before = saved_run.restore(root / 'run')
  old, new = before.experiment.sets['genres'], opened.experiment.sets['genres']
  tables = _table(before.state), _table(state)
  rows = [
    dict(zip(s.raw, t[2:], strict=True))
    for s, t in zip((old, new), tables, strict=True)
  ]
  shared = rows[0].keys() & rows[1].keys()
  assert {'h0', 'g5', ''} <= shared and 'k5' in rows[1]
  for member in shared:
    np.testing.assert_array_equal(rows[0][member], rows[1][member])
  plain = _config(
    tmp_path, train__init_from=str(root / 'run'), data__columns__sets=()
  )
  with pytest.raises(errors.UsageError, match='genres has sets in one of'):
    run_lib.Run(plain, tmp_path / 'other')
