"""Runs whose tables lie joined: they move between layouts as they are."""

from __future__ import annotations

from etils import epath
import jax
import numpy as np
import pytest

from dare_jax import errors
from dare_jax import evaluate
from dare_jax import tables
from dare_jax import trained
from dare_jax.runs import run as run_lib
from dare_jax.training import saved_form
from dare_jax.warm_start import starting
from tests import tiny

pytestmark = pytest.mark.slow
_FIELDS = {
  'optim__tables': 'lazy_adam',
  'optim__row_sparse_from': 1,
  'optim__table_dtype': 'bfloat16',
  'optim__by_table': (('item_attention', 0.02, 0.1),),
}


@pytest.fixture(scope='module')
def configs(tmp_path_factory):
  root = tmp_path_factory.mktemp('layouts')
  tiny.write_log(root / 'log.csv', num_users=30)
  return {
    layout: tiny.config(root, optim__table_layout=layout, **_FIELDS)
    for layout in tables.LAYOUTS
  }


@pytest.fixture(scope='module')
def moved(configs, tmp_path_factory):
  """A run that was joined, then apart, then joined; its workdir and result."""
  workdir = tmp_path_factory.mktemp('moved')
  for layout, check in (('joined', 4), ('apart', 4)):
    with pytest.raises(errors.Stopped):
      tiny.run(configs[layout], workdir, tiny.StopAtCheck(check))
  return workdir, tiny.run(configs['joined'], workdir)


def _parts(state):
  return tables.apart(state.tables['encoder'], state.table_slots)


def test_a_checkpoint_fits_either_layout_bit_for_bit(configs, moved):
  apart, joined = (
    tiny.restore(configs[layout], moved[0])[0] for layout in tables.LAYOUTS
  )
  assert isinstance(joined.tables['encoder']['joined_item'], tables.Joined)
  tiny.assert_same_bits(_parts(joined), _parts(apart))
  assert _parts(apart)[0] == apart.tables['encoder']
  tiny.assert_same_bits(
    list(saved_form.of_state(joined)), jax.tree.leaves(apart)
  )


def test_what_a_run_learns_does_not_depend_on_the_layout(
  configs, moved, tmp_path
):
  workdir, result = moved
  assert len(result['resumed_from']) == 2
  straight = tiny.run(configs['apart'], tmp_path / 'straight')
  assert result['test'] == pytest.approx(
    straight['test'], rel=1e-3, abs=1e-3, nan_ok=True
  )
  assert evaluate.evaluate(workdir)['metrics'] == pytest.approx(
    result['test'], rel=1e-6, nan_ok=True
  )
  one, other = (
    trained.load(path).variables['tables']['encoder']
    for path in (workdir, tmp_path / 'straight')
  )
  assert one.keys() == other.keys()
  for name, table in one.items():
    assert table.dtype == other[name].dtype
    # A sum that is rounded otherwise may round a bfloat16 otherwise.
    wide = [np.asarray(t, np.float32) for t in (table, other[name])]
    assert np.mean(wide[0] == wide[1]) > 0.9
    np.testing.assert_allclose(*wide, atol=1e-2)


def test_a_run_starts_from_another_in_either_layout(configs, moved, tmp_path):
  made = {}
  for layout, config in configs.items():
    config = config.copy_and_resolve_references()
    config.train.init_from = str(moved[0])
    run = run_lib.Run(config, tmp_path / layout)
    run.close()
    older = starting.Older(run.experiment, epath.Path(moved[0]))
    made[layout] = starting.start_from(run.experiment, older)
  tiny.assert_same_bits(_parts(made['joined']), _parts(made['apart']))
  best, _ = tiny.restore(configs['apart'], moved[0])
  item = made['apart'].tables['encoder']['item_attention']
  assert np.any(np.asarray(item, np.float32))
  assert item.shape == best.tables['encoder']['item_attention'].shape
