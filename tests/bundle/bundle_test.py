"""A bundle scores as the run that it was made of."""

import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from dare_jax import bundle
from dare_jax import errors
from tests.bundle import served

# As if nothing but JAX, NumPy and what they need were installed.
_ALONE = """
import sys
for name in ('dare_jax', 'flax', 'polars', 'orbax', 'ml_collections', 'etils'):
  sys.modules[name] = None
"""
_WITHOUT_TRAINING = """
import sys
from dare_jax import bundle
opened = bundle.open(sys.argv[1])
ids = {field: opened.ids(field, [1]) for field in opened.fields}
opened.score([ids], [ids])
found = {'flax', 'polars', 'orbax', 'optax', 'tensorflow_datasets'}
print(found & {*sys.modules})
"""


def test_says_what_it_is(opened):
  assert opened.name == 'dare'
  assert opened.fields == ('item', 'category')
  assert opened.context_fields == ()
  assert (opened.history_length, opened.top_k) == (20, 5)
  assert opened.unknown_id == 1
  assert opened.has_cached_keys
  shapes = [str(shape) for shape in opened.shapes]
  assert shapes == ['1x2x16', '1x4x32', '3x4x32']
  manifest = opened.manifest
  assert manifest['metrics']['test']['auc'] > 0.5
  assert manifest['attention_dims'] == {'item': 4, 'category': 4, 'time': 4}
  for told in (*manifest['tables'].values(), *manifest['programs']):
    assert told['sha256'] == manifest['files'][told['file']]['sha256']
  kinds = {told['kind'] for told in manifest['programs']}
  assert kinds == {'predict', 'encode_history', 'append', 'search', 'score'}


def test_scores_histories_and_candidates_of_any_number(opened, run):
  rng = np.random.default_rng(0)
  lengths, counts = (0, 3, 20, 19, 31), (1, 4, 3, 9, 5)
  histories = [served.raw(rng, n) for n in lengths]
  candidates = [served.raw(rng, n) for n in counts]
  served.assert_same(opened, run, histories, candidates)
  served.assert_same(opened, run, histories[1:3] * 2, candidates[:2] * 2)
  # The same by programs for any shape.
  served.assert_same(opened.of_shapes([]), run, histories, candidates)


def test_a_state_that_was_appended_to_is_the_whole_history(opened, run):
  """Past the first slots, and past the history length: the ring goes round."""
  rng = np.random.default_rng(1)
  history, some = served.raw(rng, 60), served.raw(rng, 3)
  ids = served.ids(opened, history)
  state = opened.encode({field: own[:10] for field, own in ids.items()})
  before = state.nbytes
  for end in range(10, 60):
    state = opened.append(state, {f: int(own[end]) for f, own in ids.items()})
    assert len(state) == min(end + 1, 20)
    if end % 7:
      continue
    (scores,) = opened.score([state], [served.ids(opened, some)])
    past = {field: values[: end + 1] for field, values in history.items()}
    np.testing.assert_allclose(
      scores.logit, run.score(past, some), rtol=1e-6, atol=1e-6
    )
  assert state.nbytes > before


def test_a_compact_state_scores_the_same(opened):
  rng = np.random.default_rng(4)
  past, some = (served.ids(opened, served.raw(rng, n)) for n in (17, 3))
  whole = opened.append(opened.encode(past), dict.fromkeys(past, 3))
  small = whole.compact()
  assert small.nbytes < whole.nbytes / 3
  assert opened.expand(whole) is whole
  assert opened.expand(small).nbytes == whole.nbytes
  logits = [one.logit for one in opened.score([whole, small], [some] * 2)]
  np.testing.assert_array_equal(*logits)


def test_nothing_is_compiled_once_it_is_warm(root):
  """Also for a state that is kept, and one that was appended to."""
  opened = bundle.open(root / 'bundle')
  opened.warm_up()
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if 'mlir' in event else None
  )
  rng = np.random.default_rng(2)
  for length in (3, 16, 20):
    past, some = (served.ids(opened, served.raw(rng, n)) for n in (length, 2))
    state = opened.encode(past)
    later = opened.append(state, dict.fromkeys(past, 2))
    for history in (past, state, later):
      opened.score([history], [some])
    opened.score([past, state, later], [some] * 3)
  assert not compiled
  opened.of_shapes([]).score([past], [some])
  assert compiled


def test_explains_what_was_found(opened):
  rng = np.random.default_rng(2)
  history, some = served.raw(rng, 3), served.raw(rng, 6)
  ids, candidates = served.ids(opened, history), served.ids(opened, some)
  (scores,) = opened.score([ids], [candidates], explain=True)
  assert scores.distance.shape == (6, 5) and scores.distance.dtype == np.int32
  np.testing.assert_array_equal(scores.mask.sum(axis=1), 3)
  np.testing.assert_allclose(scores.weight.sum(axis=1), 1, rtol=1e-6)
  assert (scores.distance[~scores.mask] == 0).all()
  assert set(scores.distance[scores.mask]) == {1, 2, 3}
  nothing = {field: own[:0] for field, own in ids.items()}
  (scores,) = opened.score([nothing], [candidates], explain=True)
  assert not scores.mask.any() and np.isfinite(scores.logit).all()
  (scores,) = opened.score([ids], [nothing], explain=True)
  assert scores.logit.shape == (0,) and scores.weight.shape == (0, 5)
  assert opened.score([], []) == []


def test_ids_are_those_of_the_run(opened, run):
  for raw in (['i5', 'i7', None, 'never', ''], np.array(['i5', 'i99']), [5]):
    np.testing.assert_array_equal(opened.ids('item', raw), run.ids('item', raw))
  unknown = opened.unknown('item', opened.ids('item', ['i5', 'never']))
  assert unknown.tolist() == [False, True]


def test_what_does_not_fit_is_refused(opened, root):
  ids = served.ids(opened, {'item': ['i5'], 'category': ['c5']})
  cases = [
    (lambda: opened.ids('brand', ['b']), 'one of category, item'),
    (lambda: opened.ids('item', 'i5'), 'expected a list'),
    (lambda: opened.encode({'item': ids['item']}), 'fields item, category'),
    (
      lambda: opened.encode({**ids, 'item': np.array([5, 6])}),
      r'\(2,\) of item, \(1,\) of category',
    ),
    (lambda: opened.encode({**ids, 'item': [500]}), '500: expected 0 to 101'),
    (lambda: opened.score([ids], []), '1 histories, 0 lists'),
    (lambda: opened.score([ids], [ids], [{'hour': 1}]), 'got hour'),
  ]
  for call, told in cases:
    with pytest.raises(errors.UsageError, match=told):
      call()


@pytest.mark.slow
def test_narrow_tables_score_nearly_the_same(opened, root):
  rng = np.random.default_rng(3)
  histories = [served.raw(rng, n) for n in (20, 7)]
  candidates = [served.raw(rng, n) for n in (8, 8)]
  served.export(root / 'run', root / 'int8', tables='int8', shapes='')
  narrow = bundle.open(root / 'int8')
  assert narrow.version != opened.version
  tables = narrow.manifest['tables']
  assert tables['item_attention']['dtype'] == 'int8'
  assert tables['item_attention.scale']['dtype'] == 'float32'
  assert tables['time_attention']['dtype'] == 'float32'
  own, new = (
    one.score(
      [served.ids(one, history) for history in histories],
      [served.ids(one, some) for some in candidates],
    )
    for one in (opened, narrow)
  )
  for a, b in zip(own, new, strict=True):
    assert 0 < np.abs(a.logit - b.logit).max() < 0.1
  state = narrow.encode(served.ids(narrow, histories[0]))
  with pytest.raises(errors.UsageError, match='encode the history again'):
    opened.score([state], [served.ids(opened, candidates[0])])


def test_the_lines_of_its_readme_score_a_user(root, run, tmp_path):
  about = (root / 'bundle' / 'README.md').read_text()
  lines = re.search(r'```python\n(.*?)```', about, re.DOTALL)
  told = 'print(history, candidates)'
  printed = _printed('-c', f'{_ALONE}\n{lines[1]}\n{told}')
  found = np.array(re.findall(r'-?\d+\.\d+(?:e-?\d+)?', printed), float)
  history, candidates = (
    {
      'item': re.findall(r"'(i\d+)'", part),
      'category': re.findall(r"'(c\d+)'", part),
    }
    for part in printed.split('} {')
  )
  expected = run.score(history, candidates)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_is_read_without_the_libraries_of_training(root):
  assert _printed('-c', _WITHOUT_TRAINING, str(root / 'bundle')) == 'set()\n'


def _printed(*args: str) -> str:
  """Returns what a fresh Python in another folder prints."""
  done = subprocess.run(
    [sys.executable, '-I', *args],
    capture_output=True,
    text=True,
    check=False,
    cwd='/',
    env={'JAX_PLATFORMS': 'cpu'},
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout
