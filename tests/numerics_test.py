"""Runs under settings of JAX that a process may have: none is refused."""

import shutil

import jax
import numpy as np
import pytest

from dare_jax import evaluate
from dare_jax import trained
from tests import tiny

pytestmark = pytest.mark.slow

_FIELDS = {
  'train__steps': 2,
  'eval__every_steps': 0,
  'optim__row_sparse_from': 1,
  # Rounded by random numbers, which must be the same ones.
  'optim__table_dtype': 'bfloat16',
}
_SETTINGS = {
  '64 bits': lambda: jax.enable_x64(True),
  'another generator': lambda: jax.default_prng_impl('rbg'),
  'a generator without order': lambda: jax.default_prng_impl('unsafe_rbg'),
  'strict promotion': lambda: jax.numpy_dtype_promotion('strict'),
  'a look for NaN': lambda: jax.debug_nans(True),
  'another precision': lambda: jax.default_matmul_precision('float32'),
}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Runs of 2 steps, and of one more, under JAX's own settings."""
  root = tmp_path_factory.mktemp('numerics')
  tiny.write_log(root / 'log.csv', num_users=30)
  tiny.run(tiny.config(root, **_FIELDS), root / 'run')
  shutil.copytree(root / 'run', root / 'longer')
  tiny.run(tiny.config(root, **_FIELDS | {'train__steps': 3}), root / 'longer')
  return root


_HISTORY = {'item': ['i1', 'i2'], 'category': ['c1', 'c2']}


@pytest.fixture(scope='module')
def scores(root):
  return trained.load(root / 'run').score(_HISTORY, _HISTORY)


@pytest.fixture(scope='module')
def metrics(root):
  return evaluate.evaluate(root / 'run')['metrics']


def _logits(workdir):
  with np.load(workdir / 'predictions_test.npz') as saved:
    return saved['logit']


@pytest.mark.parametrize('setting', _SETTINGS)
def test_a_sound_checkpoint_loads(root, scores, setting):
  with _SETTINGS[setting]():
    run = trained.load(root / 'run')
    assert {leaf.dtype.itemsize for leaf in jax.tree.leaves(run.variables)} <= {
      2,
      4,
    }
    logits = run.score(_HISTORY, _HISTORY)
  np.testing.assert_allclose(logits, scores, rtol=1e-6)


@pytest.mark.parametrize('setting', _SETTINGS)
def test_a_run_is_evaluated_and_goes_on(root, metrics, tmp_path, setting):
  shutil.copytree(root / 'run', tmp_path / 'run')
  with _SETTINGS[setting]():
    assert evaluate.evaluate(root / 'run')['metrics'] == metrics
    made = tiny.config(root, **_FIELDS | {'train__steps': 3})
    assert tiny.run(made, tmp_path / 'run')['resumed_from'] == [2]
  tiny.assert_same_run(made, root / 'longer', tmp_path / 'run')
  np.testing.assert_array_equal(
    _logits(tmp_path / 'run'), _logits(root / 'longer')
  )


def test_the_model_may_be_applied_with_64_bits(root):
  """The variables stay as they are; what is computed may be wider."""
  with jax.enable_x64(True):
    run = trained.load(root / 'run')
    apply = jax.jit(run.model.apply)
    logits = [
      np.asarray(apply(run.variables, item.batch).logits)[
        item.batch.targets.weight > 0
      ]
      for item in run.experiment.pipelines['test'].eval_batches(50)
    ]
  expected = _logits(root / 'run')
  np.testing.assert_allclose(np.concatenate(logits), expected, atol=1e-5)
