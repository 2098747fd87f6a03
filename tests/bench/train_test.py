"""The training benchmark runs the real pipeline and step."""

import dataclasses
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.bench import command
from dare_jax.bench import random_log
from dare_jax.bench.training import train
from dare_jax.bench.training import train_figure
from dare_jax.configs import base

_SHAPE = random_log.Shape(rows=5_000, categories=500, distinct=3_000)
_POINT = train.Point('dare', 20, 16, 8, 1, 'lazy_adam', 5_000)


class TrainBenchTest(parameterized.TestCase):
  @pytest.mark.slow
  def test_row_has_what_readers_script_against(self):
    config = base.get_config()
    config.runtime.compilation_cache = ''
    folder = self.enterContext(tempfile.TemporaryDirectory())
    training = train.of_config(config, _POINT, _SHAPE)
    row = train.measure_one(training, 0.01, folder)
    self.assertEqual(row['moments_per_window'], 1)
    self.assertEqual(row['targets_per_step'], 24)
    self.assertGreater(row['examples_per_s'], 0)
    self.assertBetween(row['wait_share'], 0, 1)
    self.assertGreater(row['peak_rss_mb'], 50)
    for part in ('host', 'place', 'gather', 'model', 'update'):
      self.assertGreater(row[f'{part}_ms'], 0)
    # Rate and step time are two views of the same steps.
    rate = row['targets_per_step'] / row['step_ms'] * 1e3
    self.assertBetween(row['examples_per_s'] / rate, 0.1, 10)
    # Eight histories and their targets; the 0 of padding is not drawn.
    self.assertBetween(row['unique_items'], 20, 8 * 20 + 24)
    # Both item tables by rows: gathered, then moved with Adam's two slots.
    item = 2 * row['unique_items'] * 16 * 4 * (1 + 2 + 2 * 2)
    # The other tables whole: 500 categories and 201 or more positions.
    small = 2 * 500 * 16 * 4 * (2 + 2 * 2)
    self.assertBetween(row['table_mb_per_step'] * 1e6, item + small, 2 * small)
    traces = [*pathlib.Path(folder).rglob('*.xplane.pb')]
    self.assertLen(traces, 1)
    self.assertGreater(traces[0].stat().st_size, 1_000)

  def test_tables_of_any_size_are_read_alike(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    counts = []
    for rows in (5_000, 90_000):
      shape = random_log.Shape(rows, 500, 3_000)
      path = pathlib.Path(folder) / str(rows)
      item = random_log.write(path, shape, 40).behaviors.columns['item_id']
      counts.append(np.unique(item, return_counts=True)[1])
      self.assertBetween(item.max(), rows * 0.9, rows - 1)
      self.assertGreaterEqual(item.min(), 2)
    np.testing.assert_array_equal(*(np.sort(count) for count in counts))
    # The first item is twice as popular as the second.
    first, second = np.sort(counts[0])[:-3:-1]
    self.assertBetween(first / second, 1.8, 2.2)

  def test_table_shows_every_cell(self):
    table = command.show([{'a': 1, 'b': 2.5}, {'a': 3, 'b': 12345.6}])
    self.assertLen(table.splitlines(), 3)
    for cell in ('a', 'b', '1', '2.5', '3', '12,346'):
      self.assertIn(cell, table)

  def test_points_replace_what_the_config_says(self):
    config = base.get_config()
    config.train.moments_per_window = 4
    point = dataclasses.replace(_POINT, preset='twin', dim=8, optimizer='sgd')
    made = train.of_config(config, point, _SHAPE)
    self.assertEqual(made.options.data.history_length, 20)
    self.assertEqual(made.options.train.batch_size, 8)
    self.assertEqual(made.options.train.moments_per_window, 1)
    self.assertEqual(made.options.optim.tables, 'sgd')
    self.assertEqual(made.model.plan, 'shared')
    widths = [(f.attention_dim, f.vocab_size) for f in made.model.content]
    self.assertEqual(widths, [(8, 5_000), (8, 500)])

  @parameterized.parameters(
    ({'length': 10}, 'model.top_k=20 exceeds data.history_length=10'),
    ({'preset': 'twinn'}, 'twinn'),
    ({'optimizer': 'sgdd'}, 'optim.tables'),
  )
  def test_bad_points_are_told(self, values, message):
    point = dataclasses.replace(_POINT, **values)
    with self.assertRaisesRegex(errors.UsageError, message):
      train.of_config(base.get_config(), point, _SHAPE)

  @parameterized.parameters(
    (lambda: train.parse('rows', ['10', '1e6']), '--rows.*1e6'),
    (lambda: train.parse('dims', ['0']), '--dims.*1 or more'),
    (lambda: train.parse('lengths', []), '--lengths is empty'),
    (lambda: random_log.Shape(100, 10, 99), '99 distinct.*100 rows'),
  )
  def test_bad_flags_are_told(self, call, message):
    with self.assertRaisesRegex(errors.UsageError, message):
      call()


def test_figure_is_drawn(tmp_path):
  row = {
    'model': 'dare', 'history_length': 200, 'dim': 16, 'moments_per_window': 1,
    'optimizer': 'sgd', 'targets_per_step': 24, 'step_ms': 9.0, 'host_ms': 2.0,
    'gather_ms': 1.0, 'model_ms': 6.0, 'update_ms': 3.0, 'peak_rss_mb': 900.0,
    'examples_per_s': 1e4,
  }  # fmt: skip
  rows = [row | {'rows': number} for number in (100, 2_000)]
  train_figure.draw(rows, tmp_path / 'train.png')
  pyplot = pytest.importorskip('matplotlib.pyplot')
  pixels = pyplot.imread(tmp_path / 'train.png')
  assert pixels.shape[0] > 300
  # A bar for each part of each row is there, in its colour.
  for _, _, color in train_figure._PARTS:
    wanted = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    near = np.abs(pixels[..., :3] - wanted).max(-1) < 0.01
    assert near.sum() > 500


if __name__ == '__main__':
  absltest.main()
