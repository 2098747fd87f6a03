"""Runs that learn among the candidates of a moment."""

import pytest

from dare_jax import errors
from dare_jax.experiments import config_check
from tests import tiny

_LOSSES = {
  'optim__softmax_weight': 1.0,
  'optim__pointwise_weight': 0.5,
  'data__in_batch_negatives': 2,
  'model__aux_head': False,
}


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_a_whole_one(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  config = tiny.config(tmp_path, train__moments_per_window=3, **_LOSSES)
  whole = tiny.run(config, tmp_path / 'whole')
  with pytest.raises(errors.Stopped):
    tiny.run(config, tmp_path / 'parts', tiny.StopAtCheck(6))
  tiny.run(config, tmp_path / 'parts')
  tiny.assert_same_run(config, tmp_path / 'whole', tmp_path / 'parts')
  assert whole['val']['auc'] > 0.5


@pytest.mark.parametrize(
  ('fields', 'named'),
  [
    ({'optim__softmax_weight': -1.0}, 'optim.softmax_weight=-1.0: expected 0'),
    ({'optim__pointwise_weight': 0.0}, 'nothing would be learned'),
    ({'optim__softmax_weight': 0.0}, 'data.in_batch_negatives=2 needs optim.s'),
    ({'data__group_candidates': False}, 'needs data.group_candidates=True'),
  ],
)
def test_losses_that_make_no_sense_are_refused(tmp_path, fields, named):
  losses = _LOSSES | fields
  if 'optim__pointwise_weight' in fields:
    losses |= {'optim__softmax_weight': 0.0, 'data__in_batch_negatives': 0}
  config = tiny.config(tmp_path, **losses)
  with pytest.raises(errors.UsageError) as raised:
    config_check.check(config)
  assert named in str(raised.value)
