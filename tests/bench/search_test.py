"""The search benchmark at sizes of no interest: its rows, its refusals."""

from __future__ import annotations

import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from dare_jax import errors
from dare_jax.bench.searching import drawing
from dare_jax.bench.searching import overlap
from dare_jax.bench.searching import search

_MACHINE = {'stream_gb_per_s': 10.0, 'matmul_gflop_per_s': 50.0}


def _row(**changes):
  sizes = {
    'length': 64,
    'candidates': 2,
    'dim': 8,
    'precision': 'float32',
    'method': 'score',
  }
  point = search.Point(**(sizes | changes))
  return search.measure_one(point, 4, 1, _MACHINE, [])


class SearchBenchTest(parameterized.TestCase):
  def test_a_sweep_changes_one_size_at_a_time(self):
    points = list(
      search.sweep(
        length=[9, 5],
        candidates=[1],
        dim=[8, 4, 2],
        precision=['int8'],
        method=['score'],
      )
    )
    assert [(p.length, p.dim) for p in points] == [
      (9, 8),
      (5, 8),
      (9, 4),
      (9, 2),
    ]

  def test_every_precision_and_method_is_swept(self):
    points = search.sweep(
      length=[9, 5],
      candidates=[1],
      dim=[8],
      precision=['float32', 'int8'],
      method=['score', 'category'],
    )
    assert [(p.precision, p.method, p.length) for p in points] == [
      ('float32', 'score', 9),
      ('float32', 'score', 5),
      ('int8', 'score', 9),
      ('int8', 'score', 5),
      ('float32', 'category', 9),
      ('float32', 'category', 5),
    ]

  @parameterized.parameters(
    {},
    {'precision': 'int8'},
    {'method': 'category'},
    {'method': 'clusters'},
    {'method': 'simhash'},
  )
  def test_a_row_adds_up(self, **changes):
    row = _row(**changes)
    # One megabyte of float32 keys, rounded up to whole users.
    assert row['users'] == -(-1_000_000 // (4 * 64 * 8))
    share = row['read_mb'] / 1e3 / row['search_s'] / 10.0
    np.testing.assert_allclose(row['stream_share'], share)
    assert row['judged'] == (row['search_s'] >= 1e-3)
    exact = 'precision' not in changes and 'method' not in changes
    assert row['recall'] == 1 if exact else row['recall'] <= 1
    narrow = 4 if row['precision'] == 'int8' else 1
    np.testing.assert_allclose(
      row['read_mb'], row['users'] * 64 * 8 * 4 / narrow / 1e6
    )

  @parameterized.parameters('float32', 'int8')
  def test_categories_apart_read_less(self, precision):
    row = _row(method='score_by_category', precision=precision)
    behaviors = row['users'] * 64
    narrow = 4 if precision == 'int8' else 1
    # Two bytes tell 300 categories apart.
    read = behaviors * (4 * 4 / narrow + 2) / 1e6
    np.testing.assert_allclose(row['read_mb'], read)
    assert row['recall'] == 1

  def test_buckets_choose_nothing(self):
    assert _row(method='buckets')['recall'] is None

  def test_recall_counts_what_was_wanted(self):
    found, wanted = np.array([[[1, 2, 3, 4]]]), np.array([[[4, 9, 1, 8]]])
    assert np.mean(overlap.shares(found, wanted)) == 0.5

  @parameterized.parameters(
    ({'precision': 'int4'}, 'precision=int4: expected of float32'),
    ({'method': 'all'}, 'method=all: expected of score'),
    ({'method': 'score_by_category', 'dim': 1}, 'dim=1: expected 2 or more'),
    ({'length': 3}, 'length=3: expected at least --top_k=4'),
  )
  def test_what_cannot_be_measured_is_refused(self, change, said):
    sizes = {'length': 9, 'candidates': 1, 'dim': 2}
    sizes |= {'precision': 'int8', 'method': 'score'}
    with self.assertRaisesRegex(errors.UsageError, said):
      search._check([search.Point(**(sizes | change))], 4, [])

  def test_a_figure_with_auc(self):
    row = _row()
    rows = [row, row | {'dim': 4}, row | {'length': 32}]
    made = tempfile.TemporaryDirectory()
    self.addCleanup(made.cleanup)
    folder = pathlib.Path(made.name)
    quality = [
      {'attention_dim': d, 'representation_dim': 8, 'model': 'dare', 'auc': 0.8}
      for d in (4, 8)
    ]
    (folder / 'auc.json').write_text(json.dumps({'rows': quality}))
    drawing.draw(
      rows,
      folder / 'a.png',
      drawing.read_auc(str(folder / 'auc.json')),
    )
    assert (folder / 'a.png').stat().st_size > 1000
    assert len(drawing._lines(rows, 'dim')['score, float32']) == 2
    (folder / 'bad.json').write_text('[{"auc": 1}]')
    with self.assertRaisesRegex(errors.UsageError, 'attention_dim'):
      drawing.read_auc(str(folder / 'bad.json'))


if __name__ == '__main__':
  absltest.main()
