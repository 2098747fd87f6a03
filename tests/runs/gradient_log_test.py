"""A run that observes its gradients: what it writes, and that it resumes."""

from etils import epath
import pytest

from dare_jax import errors
from dare_jax.runs import gradient_log
from dare_jax.training.roles import gradient_statistics
from tests import tiny


@pytest.mark.slow
def test_a_resumed_run_leaves_no_gap_and_no_repeat(tmp_path):
  tiny.write_log(tmp_path / 'log.csv', num_users=40)
  fields = {'model__name': 'twin', 'train__observe_gradients': True}
  config = tiny.config(tmp_path, **fields)
  tiny.run(config, tmp_path / 'whole')
  with pytest.raises(errors.Stopped):  # In the midst of a log window.
    tiny.run(config, tmp_path / 'resumed', tiny.StopAtCheck(8))
  tiny.run(config, tmp_path / 'resumed')
  tiny.assert_same_run(config, tmp_path / 'whole', tmp_path / 'resumed')
  whole, resumed = (
    tmp_path / name / gradient_log.FILE for name in ('whole', 'resumed')
  )
  assert whole.read_bytes() == resumed.read_bytes()
  lines = [
    line
    for line in tiny.metric_lines(tmp_path / 'whole')
    if 'gradients/item_shared/attention_norm' in line
  ]
  assert [line['step'] for line in lines] == [3, 6]
  names = {f'gradients/item_shared/{n}' for n in gradient_statistics.NAMES}
  assert names <= {*lines[0]}
  seen = gradient_log.load(epath.Path(tmp_path / 'whole'))
  assert seen is not None and seen['step'] == 8
  for table in ('item_shared', 'category_shared', 'time_shared'):
    # Every step, those since the last line too, is in the histogram.
    assert seen[f'{table}/histograms'].sum(axis=1).tolist() == [8, 8]
    assert seen[f'{table}/sums'][:, 0].max() <= 8
  whole.write_bytes(whole.read_bytes()[:100])
  with pytest.raises(errors.UsageError, match='is damaged'):
    gradient_log.load(epath.Path(tmp_path / 'whole'))
