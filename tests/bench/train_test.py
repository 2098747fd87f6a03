"""The training benchmark runs the real pipeline and step."""

from absl.testing import absltest

from dare_jax.bench import __main__ as bench
from dare_jax.bench import train
from dare_jax.configs import base


class TrainBenchTest(absltest.TestCase):
  def test_row_has_what_readers_script_against(self):
    config = base.get_config()
    config.data.history_length = 20
    config.data.split = 'leave_last'
    config.train.batch_size = 8
    config.runtime.compilation_cache = ''
    row = train.measure_one(config, num_items=5_000, seconds=0.01)
    self.assertEqual(row['moments_per_window'], 1)
    self.assertEqual(row['targets_per_step'], 24)
    self.assertGreater(row['examples_per_s'], 0)
    self.assertBetween(row['wait_share'], 0, 1)
    self.assertGreater(row['peak_rss_mb'], 50)
    # Rate and step time are two views of the same steps.
    rate = row['targets_per_step'] / row['step_ms'] * 1e3
    self.assertBetween(row['examples_per_s'] / rate, 0.1, 10)

  def test_table_shows_every_cell(self):
    table = bench.show([{'a': 1, 'b': 2.5}, {'a': 3, 'b': 12345.6}])
    self.assertLen(table.splitlines(), 3)
    for cell in ('a', 'b', '1', '2.5', '3', '12,346'):
      self.assertIn(cell, table)


if __name__ == '__main__':
  absltest.main()
