"""The command that scores files: values, histories, refusals."""

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax import predict
from dare_jax import trained
from tests import tiny
from tests.bundle import served
from tests.prediction import cases


@pytest.mark.parametrize(
  'name',
  [
    pytest.param('din', marks=pytest.mark.slow),
    pytest.param('eta', marks=pytest.mark.slow),
    'twin_v2',
  ],
)
def test_scores_are_those_of_evaluation(root, tmp_path, ask, name):
  frame, logits = cases.rows(cases.train(root, name))
  frame.write_parquet(tmp_path / 'in.parquet')
  ask(tmp_path / 'in.parquet', tmp_path / 'out.csv', workdir=str(root / name))
  assert logits.std() > 0.1
  np.testing.assert_allclose(
    cases.logits(tmp_path / 'out.csv'), logits, rtol=1e-6, atol=1e-6
  )


@pytest.mark.slow
def test_further_fields_and_context(tmp_path, ask):
  """An empty further field is a value of its own, as in the log."""
  lines = tiny.write_log(tmp_path / 'log.csv', 30).read_text().splitlines()
  shops, devices = ('s1', '', 's2', 's3'), ('web', 'app', '')
  more = [f'{lines[0]},shop,device'] + [
    f'{line},{shops[n % 4]},{devices[n % 3]}'
    for n, line in enumerate(lines[1:])
  ]
  (tmp_path / 'log.csv').write_text('\n'.join(more))
  columns = {'fields': ('shop',), 'context': ('device',)}
  workdir = cases.train(
    tmp_path, 'twin', **{f'data__columns__{k}': v for k, v in columns.items()}
  )
  frame, logits = cases.rows(workdir)
  assert (frame['shop'] == '').any()
  assert (frame['device'] == '').any()
  flags = {'workdir': str(workdir)}
  frame.write_csv(tmp_path / 'in.csv')
  ask(tmp_path / 'in.csv', tmp_path / 'out.csv', **flags)
  np.testing.assert_allclose(
    cases.logits(tmp_path / 'out.csv'), logits, rtol=1e-6, atol=1e-6
  )
  # What the input lacks: a shop is the item's last, a device is nobody's.
  log = pl.read_csv(tmp_path / 'log.csv', infer_schema=False)
  last = dict(log.select('item_id', pl.col('shop').fill_null('')).iter_rows())
  own = [last[item] for item in frame['item_id']]
  frame.with_columns(shop=pl.Series(own)).write_csv(tmp_path / 'last.csv')
  frame.drop('shop').write_csv(tmp_path / 'no_shop.csv')
  for name in ('last', 'no_shop'):
    ask(tmp_path / f'{name}.csv', tmp_path / f'{name}_out.csv', **flags)
  np.testing.assert_array_equal(
    cases.logits(tmp_path / 'no_shop_out.csv'),
    cases.logits(tmp_path / 'last_out.csv'),
  )
  frame.drop('device').write_csv(tmp_path / 'in.csv')
  with pytest.raises(errors.UsageError, match="no column 'device'.*of the mom"):
    ask(tmp_path / 'in.csv', tmp_path / 'out.csv', **flags)


def test_rows_in_any_order_keep_it(tmp_path, ask, expected):
  """Users scattered over blocks, each moment's rows apart."""
  frame, logits = expected
  order = np.random.default_rng(0).permutation(len(frame))
  frame[order].write_csv(tmp_path / 'in.csv')
  done = ask(tmp_path / 'in.csv', tmp_path / 'out.csv')
  out = cases.read(tmp_path / 'out.csv')
  assert done.rows == len(frame)
  assert out['item_id'].to_list() == frame['item_id'][order].to_list()
  np.testing.assert_allclose(
    cases.logits(tmp_path / 'out.csv'), logits[order], rtol=1e-6, atol=1e-6
  )
  probability = out['probability'].cast(pl.Float64).to_numpy()
  wide = logits[order].astype(np.float64)
  np.testing.assert_allclose(probability, 1 / (1 + np.exp(-wide)), rtol=1e-5)


@pytest.mark.parametrize('with_time', [True, False])
def test_only_what_was_before_a_time_counts(tmp_path, workdir, ask, with_time):
  """Beside a score of the behaviors that the log has by then, in order."""
  run = trained.load(workdir)
  log = pl.read_csv(workdir.parent / 'log.csv')
  rows = [
    ('u3', 'i7', 12),
    ('u3', 'i7', 0),
    ('u9', 'i50', 29),
    ('u3', 'i8', 99),
  ]
  frame = pl.DataFrame(
    rows, schema=['user_id', 'item_id', 'timestamp'], orient='row'
  )
  if not with_time:
    frame = frame.drop('timestamp')
  frame.write_csv(tmp_path / 'in.csv')
  ask(tmp_path / 'in.csv', tmp_path / 'out.csv')
  last = dict(log.select('item_id', 'category_id').iter_rows())
  expected = []
  for user, item, time in rows:
    seen = log.filter(pl.col('user_id') == user)
    if with_time:
      seen = seen.filter(pl.col('timestamp') < time)
    history = {
      'item': seen['item_id'].to_list(),
      'category': seen['category_id'].to_list(),
    }
    candidates = {'item': [item], 'category': [last[item]]}
    expected.append(run.score(history, candidates)[0])
  assert len({*expected}) > 1
  np.testing.assert_allclose(
    cases.logits(tmp_path / 'out.csv'), expected, rtol=1e-5, atol=1e-5
  )


def test_unknown_users_and_items_are_scored_and_told(tmp_path, workdir, ask):
  run = trained.load(workdir)
  frame = pl.DataFrame(
    {
      'user_id': ['u1', 'nobody', None, 'u1'],
      'item_id': ['i5', 'i5', 'nothing', None],
      'category_id': ['c5', 'c5', 'c5', 'c5'],
    }
  )
  frame.write_csv(tmp_path / 'in.csv')
  done = ask(tmp_path / 'in.csv', tmp_path / 'out.csv')
  nothing = {'item': [], 'category': []}
  found = cases.logits(tmp_path / 'out.csv')
  for row, item in ((1, 'i5'), (2, 'nothing')):
    alone = run.score(nothing, {'item': [item], 'category': ['c5']})
    np.testing.assert_allclose(found[row], alone[0], rtol=1e-5, atol=1e-5)
  assert (done.unknown.users, done.unknown.items) == (2, 2)
  said = predict.summary(done)
  assert "log does not have: 2, such as 'nobody', None; scored with" in said
  assert "model does not know: 2, such as 'nothing', None; scored as" in said


def test_the_best_are_those_of_brute_force(tmp_path, workdir, ask):
  run = trained.load(workdir)
  log = pl.read_csv(workdir.parent / 'log.csv')
  items = [f'i{number}' for number in range(0, 100, 3)]
  pl.DataFrame(
    {'item_id': items, 'title': [f'the {i}' for i in items]}
  ).write_csv(tmp_path / 'items.csv')
  users = ['u5', 'u2', 'u5', 'nobody']
  pl.DataFrame({'user_id': users, 'mail': list('abcd')}).write_csv(
    tmp_path / 'in.csv'
  )
  ask(
    tmp_path / 'in.csv',
    tmp_path / 'out.csv',
    candidates=str(tmp_path / 'items.csv'),
    top=4,
    block=2,
  )
  out = pl.read_csv(tmp_path / 'out.csv')
  assert out.columns == [
    *('user_id', 'mail', 'item_id', 'title', 'rank', 'logit', 'probability')
  ]
  assert out['mail'].to_list() == list('aaaabbbbccccdddd')
  assert out['rank'].to_list() == [1, 2, 3, 4] * 4
  last = dict(log.select('item_id', 'category_id').iter_rows())
  for row, user in enumerate(users):
    seen = log.filter(pl.col('user_id') == user)
    history = {
      'item': seen['item_id'].to_list(),
      'category': seen['category_id'].to_list(),
    }
    candidates = {'item': items, 'category': [last[item] for item in items]}
    logits = run.score(history, candidates)
    best = np.argsort(-logits, kind='stable')[:4]
    own = out[row * 4 : row * 4 + 4]
    assert own['item_id'].to_list() == [items[place] for place in best]
    assert own['title'].to_list() == [f'the {items[place]}' for place in best]
    np.testing.assert_allclose(own['logit'], logits[best], rtol=1e-5, atol=1e-5)


def test_histories_of_another_log(tmp_path, workdir, ask):
  run = trained.load(workdir)
  log = tmp_path / 'later.csv'
  rows = ['v1,i3,c3,5', 'v1,i44,c4,9', 'u1,i3,c9,1', 'v1,new,c7,7']
  log.write_text('\n'.join(['user_id,item_id,category_id,timestamp', *rows]))
  frame = pl.DataFrame(
    {'user_id': ['v1', 'v1', 'u2'], 'item_id': ['i3', 'i44', 'i3']}
  )
  frame.write_csv(tmp_path / 'in.csv')
  done = ask(tmp_path / 'in.csv', tmp_path / 'out.csv', history=str(log))
  assert done.unknown.users == 1
  past = {'item': ['i3', 'new', 'i44'], 'category': ['c3', 'c7', 'c4']}
  expected = [
    *run.score(past, {'item': ['i3', 'i44'], 'category': ['c9', 'c4']}),
    *run.score(
      {'item': [], 'category': []}, {'item': ['i3'], 'category': ['c9']}
    ),
  ]
  np.testing.assert_allclose(
    cases.logits(tmp_path / 'out.csv'), expected, rtol=1e-5, atol=1e-5
  )
  # A log that has changed is read anew.
  log.write_text(log.read_text() + '\nu2,i3,c3,4\n')
  done = ask(tmp_path / 'in.csv', tmp_path / 'out.csv', history=str(log))
  assert done.unknown.users == 0


@pytest.mark.slow
def test_a_bundle_scores_as_its_run(root, tmp_path, workdir, ask, expected):
  served.export(workdir, tmp_path / 'bundle')
  frame, logits = expected
  some = np.random.default_rng(3).permutation(len(frame))[:100]
  frame[some].drop('category_id').write_csv(tmp_path / 'in.csv')
  flags = {'workdir': None, 'bundle': str(tmp_path / 'bundle')}
  with pytest.raises(errors.UsageError, match='--history is missing'):
    ask(tmp_path / 'in.csv', tmp_path / 'out.csv', **flags)
  flags |= {'history': str(root / 'log.csv'), 'data_dir': str(tmp_path)}
  ask(tmp_path / 'in.csv', tmp_path / 'out.csv', **flags)
  np.testing.assert_allclose(
    cases.logits(tmp_path / 'out.csv'), logits[some], rtol=1e-6, atol=1e-6
  )


def test_clusters_are_known_for_the_own_log_alone(root, tmp_path, ask):
  workdir = root / 'twin_v2'
  if not workdir.exists():
    cases.train(root, 'twin_v2')
  (tmp_path / 'in.csv').write_text('user_id,item_id\nu1,i1\n')
  with pytest.raises(errors.UsageError, match='searches clusters'):
    ask(
      tmp_path / 'in.csv',
      tmp_path / 'out.csv',
      workdir=str(workdir),
      history=str(root / 'log.csv'),
    )


_SOUND = 'user_id,item_id,timestamp\nu1,i1,5\n'


@pytest.mark.parametrize(
  ('text', 'flags', 'named'),
  [
    (None, {}, 'no such file'),
    ('', {}, 'is empty'),
    ('who,what\na,b\n', {}, "no column 'user_id' or 'user' .*it has who, what"),
    (_SOUND, {'columns': 'user=who'}, "no column 'who' .user."),
    (_SOUND, {'columns': 'usr=who'}, 'expected ROLE=NAME'),
    (_SOUND, {'shard': '0/3'}, 'expected i/n'),
    (_SOUND, {'shard': '4/3'}, 'expected i/n'),
    (_SOUND, {'shard': 'one'}, 'expected i/n'),
    (_SOUND, {'workdir': None}, 'neither is given'),
    (_SOUND, {'bundle': 'b'}, 'both are given'),
    (_SOUND, {'top': 3}, 'expected both'),
    (_SOUND, {'output': 'nowhere/out.csv'}, 'no folder'),
    (_SOUND, {'output': 'out.txt'}, 'ends in .csv, .csv.gz, .parquet'),
    (_SOUND, {'output': 'in.csv'}, 'is the input'),
    ('user_id,item_id,logit\nu1,i1,5\n', {}, "'logit', which is to be added"),
    ('user_id,item_id\nu1,i1\nu1\n', {}, 'line 3 has 1 fields, the first .* 2'),
    ('user_id,item_id\nu1,i1\n\n', {}, 'line 3 has 0 fields'),
    ('user_id,item_id\nu1,"a"b\n', {}, 'line 2 is not well formed'),
    (
      _SOUND + 'u1,i1,\n',
      {},
      "'timestamp', row 2: the time is missing; expected",
    ),
    (_SOUND + 'u1,i1,soon\n', {}, "row 2: 'soon': is no time"),
    ('user_id,item_id,timestamp\nu1,i1,2024-01-01\n', {}, 'unknown unit'),
    ('PAR1', {}, 'no readable Parquet'),
    (b'PK\x03\x04', {}, 'a zip archive'),
  ],
)
def test_what_is_wrong_is_one_line(tmp_path, ask, text, flags, named):
  path = tmp_path / 'in.csv'
  if text is not None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
  output = tmp_path / flags.pop('output', 'out.csv')
  with pytest.raises(errors.UsageError, match=named) as refused:
    ask(path, output, **flags)
  assert '\n' not in str(refused.value)
