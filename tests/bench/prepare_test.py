"""The prepare benchmark at small size."""

from __future__ import annotations

import polars as pl

from dare_jax.bench import prepare


def test_log_has_the_format_and_shape_that_it_claims(tmp_path):
  path = tmp_path / 'log.csv'
  prepare.write_log(path, 20_000)
  frame = pl.read_csv(path, has_header=False, new_columns=[*'uicyt'])
  assert frame.shape == (20_000, 5)
  assert frame['u'].n_unique() == 200
  assert set(frame['y']) == {'pv'}
  assert not frame.filter(pl.col('u') == 1)['t'].is_sorted()
  assert frame['t'].min() >= prepare._FIRST_SECOND


def test_run_measures_every_figure():
  row = prepare.run(20_000)
  assert row['rows'] == 20_000
  assert row['rows_per_s'] > 0
  assert 50 < row['peak_rss_mb'] < 3_000
  # Four int32 columns an event, and the maps of ids, large here.
  assert 16 < row['store_bytes_per_event'] < 60
