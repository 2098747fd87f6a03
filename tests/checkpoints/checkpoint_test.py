"""Checkpoints: bit for bit, and what happens to damaged ones."""

import logging
import pathlib
import shutil
import types

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dare_jax import errors
from dare_jax.checkpoints import checkpoint
from dare_jax.training import log_window
from dare_jax.training import state as train_state

_FINGERPRINT = 'abc'


def make_state(step, seed=0, rows=400):
  """A state with values, as training might leave it; NaNs and -0.0 too."""
  rng = np.random.default_rng([seed, step])

  def array(*shape):
    return jnp.asarray(rng.normal(size=shape).astype(np.float32))

  table = array(rows, 16).at[0, :3].set(jnp.array([jnp.nan, -0.0, jnp.inf]))
  return train_state.TrainState(
    step=jnp.asarray(step, jnp.int32),
    params={'head': {'kernel': array(5, 3), 'bias': array(3)}},
    tables={'item_attention': table, 'item_representation': array(rows, 16)},
    batch_stats={},
    dense_slots=(jnp.asarray(step, jnp.int32), {'mu': array(5, 3)}),
    table_slots=(array(rows, 16), array(rows, 16)),
    sums=log_window.zero_sums() | {'loss': array()},
  )


def assert_equal(left, right):
  jax.tree.map(
    lambda a, b: np.testing.assert_equal(
      np.asarray(a).tobytes(), np.asarray(b).tobytes()
    ),
    left,
    right,
  )


def description(step, **changes):
  return {
    'progress': {'step': step, 'best_val': {'auc': 1 / 3}},
    'data_fingerprint': _FINGERPRINT,
  } | changes


@pytest.fixture
def checkpoints(tmp_path):
  made = checkpoint.Checkpoints(tmp_path / 'checkpoints')
  yield made
  made.close()


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A folder with the checkpoints 10 and 20."""
  folder = tmp_path_factory.mktemp('saved') / 'checkpoints'
  made = checkpoint.Checkpoints(folder)
  for step in (10, 20):
    made.save_last(step, make_state(step), description(step))
  made.close()
  return folder


def reopen(source, target):
  shutil.copytree(source, target)
  return target


def restore_last(folder, fingerprint=_FINGERPRINT):
  made = checkpoint.Checkpoints(folder)
  try:
    return made.restore_last(make_state(0), fingerprint), made.steps()
  finally:
    made.close()


def test_round_trip_bit_for_bit(checkpoints):
  state = make_state(7)
  checkpoints.save_last(7, state, description(7))
  checkpoints.wait()
  restored, told = checkpoints.restore(7, make_state(0), _FINGERPRINT)
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  assert_equal(restored, state)
  assert told == description(7)


def test_nothing_there(checkpoints):
  assert checkpoints.restore_last(make_state(0), _FINGERPRINT) is None
  assert checkpoints.steps() == []
  assert (checkpoints.last_step, checkpoints.best_step) == (None, None)
  with pytest.raises(errors.UsageError, match='no checkpoint of step 3.*none'):
    checkpoints.restore(3, make_state(0), _FINGERPRINT)


def test_keeps_two(checkpoints):
  for step in (1, 2, 3):
    checkpoints.save_last(step, make_state(step), description(step))
    checkpoints.save_best(step + 10, make_state(step), description(step))
  checkpoints.wait()
  assert checkpoints.steps() == [2, 3, 11, 12, 13]
  assert (checkpoints.last_step, checkpoints.best_step) == (3, 13)


def test_donated_steps_after_a_save_do_not_reach_it(checkpoints):
  def step_on(state):
    return jax.tree.map(lambda leaf: leaf + 1, state)

  advance = jax.jit(step_on, donate_argnums=0)
  state = make_state(1, rows=200_000)
  copy = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state)
  checkpoints.save_last(1, state, description(1))
  for _ in range(10):
    state = advance(state)
  jax.block_until_ready(state)
  checkpoints.wait()
  template = jax.tree.map(jnp.zeros_like, state)
  restored, _ = checkpoints.restore(1, template, _FINGERPRINT)
  assert_equal(restored, copy)


def test_a_failed_background_save_is_told_once(checkpoints, monkeypatch):
  """At the next save; whoever closes afterwards is not told again."""

  def full(*unused):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(ocp.StandardCheckpointHandler, 'finalize', full)
  checkpoints.save_last(1, make_state(1), description(1))
  with pytest.raises(
    errors.UsageError, match='last: a checkpoint could not .*No space left'
  ):
    checkpoints.save_last(2, make_state(2), description(2))
  checkpoints.close()


def test_a_failed_save_of_a_stopped_run_says_why(checkpoints, monkeypatch):
  """Not that the run was stopped, which the save comes after."""

  def full(*unused):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(ocp.StandardCheckpointHandler, 'finalize', full)
  with pytest.raises(errors.UsageError, match='No space left'):
    try:
      raise errors.Stopped('the state is saved')
    except errors.Stopped:
      checkpoints.save_best(1, make_state(1), description(1))


@pytest.mark.parametrize('then', ['wait', 'close'])
def test_a_failed_last_save_is_told_at_the_end(tmp_path, monkeypatch, then):
  made = checkpoint.Checkpoints(tmp_path)

  def full(*unused):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(ocp.StandardCheckpointHandler, 'finalize', full)
  made.save_last(1, make_state(1), description(1))
  with pytest.raises(errors.UsageError, match='No space left on device'):
    getattr(made, then)()
  made.close()
  assert checkpoint.Checkpoints(tmp_path).steps() == []


def test_looking_on_removes_no_save_under_way(checkpoints, tmp_path):
  # Orbax removes what earlier runs left in a thread: before the first save.
  checkpoints.save_last(1, make_state(1), description(1))
  checkpoints.wait()
  under_way = tmp_path / 'checkpoints' / 'last' / '5.orbax-checkpoint-tmp'
  under_way.mkdir()
  looking = checkpoint.Checkpoints(tmp_path / 'checkpoints', read_only=True)
  assert looking.steps() == [1]
  looking.close()
  assert under_way.exists()


def test_of_several_processes_the_first_tries_a_disk_out(
  checkpoints, tmp_path, monkeypatch
):
  """No bucket: a folder that holds nothing is not there."""
  monkeypatch.setattr(checkpoint.processes, 'is_alone', lambda: False)
  monkeypatch.setattr(checkpoint.processes, 'first_text', lambda text: text)
  there = types.SimpleNamespace(directory=epath.Path(tmp_path))
  checkpoints._try_out(there)
  assert not (tmp_path / 'tried').exists()
  bucket = types.SimpleNamespace(directory=epath.Path('gs://b/run/last'))
  checkpoints._try_out(bucket)
  gone = types.SimpleNamespace(directory=epath.Path(tmp_path / 'gone'))
  with pytest.raises(errors.UsageError, match='No such file'):
    checkpoints._try_out(gone)


def test_keeps_as_many_as_asked(tmp_path):
  made = checkpoint.Checkpoints(tmp_path, keep_last=3)
  for step in range(1, 6):
    made.save_last(step, make_state(step), description(step))
  made.wait()
  assert made.steps() == [3, 4, 5]
  made.close()


def test_other_data_is_refused(saved):
  made = checkpoint.Checkpoints(saved)
  with pytest.raises(errors.UsageError, match='fingerprint abc.*has xyz'):
    made.restore_last(make_state(0), 'xyz')
  made.close()
  assert made.steps() == [10, 20]


def flip(file):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 0x10
  file.write_bytes(content)


def truncate(file):
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove(file):
  file.unlink()


def _files_of_newest(folder):
  """The files that hold something, of the newest checkpoint."""
  files = [f for f in (folder / 'last' / '20').rglob('*') if f.is_file()]
  return sorted(f for f in files if f.stat().st_size)


@pytest.mark.parametrize('damage', [flip, truncate, remove])
def test_a_damaged_newest_is_skipped(saved, tmp_path, damage, caplog):
  """Whichever file is damaged: the right state, or the one before."""
  fallen_back = 0
  for number, file in enumerate(_files_of_newest(saved)):
    folder = reopen(saved, tmp_path / str(number))
    damage(folder / file.relative_to(saved))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
      (state, told), steps = restore_last(folder)
    step = told['progress']['step']
    assert_equal(state, make_state(step))
    if step == 10:
      fallen_back += 1
      assert steps == [10]  # 20 will be written again.
      assert f'{folder / "last" / "20"} is damaged' in caplog.text
  assert fallen_back >= 3


def test_a_checkpoint_without_its_files_is_skipped(saved, tmp_path):
  folder = reopen(saved, tmp_path / 'c')
  for child in (folder / 'last' / '20').iterdir():
    shutil.rmtree(child) if child.is_dir() else child.unlink()
  (state, told), _ = restore_last(folder)
  assert told['progress']['step'] == 10
  assert_equal(state, make_state(10))


def test_all_damaged(saved, tmp_path):
  folder = reopen(saved, tmp_path / 'c')
  for step in ('10', '20'):
    truncate(folder / 'last' / step / 'state' / 'manifest.ocdbt')
  with pytest.raises(errors.UsageError, match='none of the checkpoints'):
    restore_last(folder)
  assert sorted(p.name for p in (folder / 'last').iterdir()) == ['10', '20']


def test_one_that_is_damaged_and_asked_for_names_the_others(saved, tmp_path):
  folder = reopen(saved, tmp_path / 'c')
  truncate(folder / 'last' / '20' / 'state' / 'manifest.ocdbt')
  made = checkpoint.Checkpoints(folder, read_only=True)
  told = r'20 is damaged: .*evaluate another one, --checkpoint=10\|20\.'
  with pytest.raises(errors.UsageError, match=told):
    made.restore(20, make_state(0), _FINGERPRINT)


def test_what_is_newer_than_the_restored_one_goes(saved, tmp_path):
  """Orbax ignores a save below its newest step, so that one must go."""
  folder = reopen(saved, tmp_path / 'c')
  made = checkpoint.Checkpoints(folder)
  for step in (15, 25):
    made.save_best(step, make_state(step), description(step))
  made.restore_last(make_state(0), _FINGERPRINT)
  assert made.steps() == [10, 15, 20]
  made.save_best(22, make_state(22), description(22))
  assert made.best_step == 22
  made.close()


def test_a_best_without_a_last_goes(checkpoints):
  checkpoints.save_best(5, make_state(5), description(5))
  assert checkpoints.restore_last(make_state(0), _FINGERPRINT) is None
  assert checkpoints.steps() == []


def test_a_half_written_save_is_not_there(saved, tmp_path):
  folder = reopen(saved, tmp_path / 'c')
  name = 'last/30.orbax-checkpoint-tmp'
  shutil.copytree(folder / 'last' / '20', folder / pathlib.Path(name))
  (_, told), steps = restore_last(folder)
  assert told['progress']['step'] == 20
  assert steps == [10, 20]
