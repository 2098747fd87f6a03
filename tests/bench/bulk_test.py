"""`bench predict` measures both sides on rows that they score alike."""

import pytest

from dare_jax import errors
from dare_jax.bench import bulk
from tests import tiny


@pytest.mark.slow
def test_rows_of_a_run(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  text = (tmp_path / 'log.csv').read_text()
  (tmp_path / 'log.csv').write_text(text.replace('user_id', 'uid', 1))
  config = tiny.config(tmp_path, train__steps=2, data__columns__user='uid')
  tiny.run(config, tmp_path / 'run')
  rows = bulk.measure(tmp_path / 'run', tmp_path, rounds=1)
  assert [row['side'] for row in rows] == ['evaluate', 'predict']
  # Three targets of each moment of the split.
  assert rows[0]['rows'] == rows[1]['rows'] == 3 * 115
  assert rows[0]['times'] == 1
  ratio = rows[1]['rows_per_s'] / rows[0]['rows_per_s']
  assert rows[1]['times'] == pytest.approx(ratio)
  assert all(row['cpu_us_per_row'] > 0 for row in rows)


def test_bad_lengths_are_told():
  for values in ([], ['x'], ['0']):
    with pytest.raises(errors.UsageError, match='--lengths='):
      bulk.parse_lengths(values)
