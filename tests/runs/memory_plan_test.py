"""What a run says that it will hold, and what it then holds."""

import dataclasses
import pathlib
import time

import jax
import pytest

from dare_jax import errors
from dare_jax import models
from dare_jax.experiments import experiment
from dare_jax.runs import memory_plan
from dare_jax.runs import run as run_lib
from dare_jax.training import state as train_state
from tests import tiny
from tests.models import examples


def _allocated(tree):
  leaves = jax.tree.leaves(tree)
  return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)


@pytest.mark.parametrize('optimizer', ['lazy_adam', 'row_adagrad', 'sgd'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.quick_cases('float32-lazy_adam')
def test_tables_and_slots_are_what_is_allocated(optimizer, dtype):
  model = examples.build('dare', vocab_sizes={'item': 5_000, 'category': 9})
  optim = examples.optim(tables=optimizer, table_dtype=dtype)
  trainer = train_state.Trainer(model, optim, 10)
  batch = examples.make_batch(0)
  parts = memory_plan.of_state(trainer.abstract_state(batch)).parts
  state = trainer.init(0, batch)
  assert parts['tables'] == _allocated(state.tables)
  assert parts['optimizer slots'] == _allocated(state.table_slots)
  assert parts['copy while a checkpoint is written'] == _allocated(state)


@pytest.fixture
def tiny_config(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  return tiny.config(tmp_path, train__steps=1, optim__row_sparse_from=50)


@pytest.mark.slow
def test_a_run_tells_its_parts(tiny_config, tmp_path, capsys):
  tiny.run(tiny_config, tmp_path / 'run')
  text = ' '.join(capsys.readouterr().out.split('  memory ')[1].split())
  total, text = text.split(' MB step ')[0].split(' on the cpu device: ')
  sizes = {}
  for part in text.split(' MB, '):
    name, size = part.rsplit(' ', 1)
    sizes[name] = float(size)
  total = float(total.split(' MB')[0])
  assert total == pytest.approx(sum(sizes.values()), abs=0.5)
  # Items fill 15,360 rows, 4 wide, in two tables; categories and time do not.
  assert sizes['tables'] == pytest.approx(2 * 15_360 * 4 * 4 / 1e6, abs=0.1)
  assert sizes['optimizer slots'] == pytest.approx(2 * sizes['tables'], abs=0.1)
  assert sizes['activations and other temporaries'] > 0


@pytest.mark.slow
def test_the_compiled_step_is_used(tiny_config, tmp_path, monkeypatch):
  """What is compiled for the plan is what runs: nothing is compiled again."""
  made = run_lib.Run(tiny_config, tmp_path / 'run')
  session = made.restore_or_init()
  with monkeypatch.context() as patch:
    patch.setattr(made.trainer, 'train_step', None)
    session.compile()
    with session.batches() as batches:
      session.step(batches)
  assert int(session.state.step) == session.progress.step == 1
  made.close()


def _refuse(*unused):
  raise AssertionError('must not be made')


def test_ten_billion_rows_are_refused_in_seconds(
  tiny_config, tmp_path, monkeypatch
):
  model_of = experiment.model_of

  def huge(*args):
    config = model_of(*args).config
    item = dataclasses.replace(config.content[0], vocab_size=10**10)
    content = (item, *config.content[1:])
    return models.Ranker(dataclasses.replace(config, content=content))

  monkeypatch.setattr(experiment, 'model_of', huge)
  monkeypatch.setattr(experiment.Experiment, 'init_state', _refuse)
  monkeypatch.setattr(run_lib.Run, 'batches', _refuse)
  made = run_lib.Run(tiny_config, tmp_path / 'run')
  before, begin = _peak(), time.perf_counter()
  with pytest.raises(errors.UsageError) as caught:
    made.restore_or_init()
  assert time.perf_counter() - begin < 10
  assert _peak() - before < 2e8
  told = str(caught.value)
  assert len(told.splitlines()) == 1
  # 10^10 rows, 4 wide, 4 bytes, 2 tables, 2 slots each, and a copy of it all.
  needed = 2 * 3 * 2 * 4 * 4 * 10**10 / 1e9
  assert f'needs {needed:,.1f} GB' in told
  made.close()


def _peak():
  status = pathlib.Path('/proc/self/status').read_text()
  return int(status.split('VmHWM:')[1].split()[0]) * 1024


def test_too_little_memory_is_told_before_the_tables_are_made(
  tiny_config, tmp_path, monkeypatch, capsys
):
  made = run_lib.Run(tiny_config, tmp_path / 'run')
  made.close()
  state = memory_plan.of_state(made.experiment.abstract_state())
  monkeypatch.setattr(experiment.Experiment, 'init_state', _refuse)
  # Not enough for the state; enough for that, but not for the step.
  for limit in (state.total - 1, state.total):
    monkeypatch.setattr(memory_plan, 'available', lambda limit=limit: limit)
    line = tiny.refusal(lambda: tiny.run(tiny_config, tmp_path / 'run'), capsys)
    assert 'training needs' in line
    assert f'there are {limit / 1e6:,.1f} MB' in line


def test_there_is_memory():
  assert 1e8 < memory_plan.available() < 1e14
