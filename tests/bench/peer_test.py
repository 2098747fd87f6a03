"""The comparison with the official code; its own part needs no torch here."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.bench import peer
from dare_jax.bench import process
from dare_jax.bench import random_log
from dare_jax.bench.published import official
from dare_jax.configs import base
from tests.models import examples


def test_each_target_gets_its_moments_history():
  batch = examples.make_batch(moments=1, candidates=3)
  rows = official.single_rows(batch)
  assert len(rows['iid']) == batch.targets.label.size
  for number in range(len(rows['iid'])):
    window, slot = divmod(number, 3)
    for key, field in (('iid', 'item'), ('cid', 'category')):
      history = rows[f'hist_{key}'][number]
      np.testing.assert_array_equal(history, batch.history.ids[field][window])
      assert rows[key][number] == batch.targets.ids[field][window, 0, slot]
    mask = batch.history.mask[window]
    np.testing.assert_array_equal(rows['mask'][number], mask)
    # The last behavior is one step back; click and no click, one of them.
    np.testing.assert_array_equal(
      rows['hist_tid'][number], range(examples.LENGTH, 0, -1)
    )
    label = batch.targets.label[window, 0, slot]
    assert rows['target'][number].tolist() == [label, 1 - label]


def test_speeds_are_compared_turn_by_turn():
  base = [{'examples_per_s': speed} for speed in (100.0, 50.0, 80.0)]
  turns = [{'examples_per_s': speed} for speed in (1000.0, 600.0, 640.0)]
  found = peer.summarize(turns, base)
  assert found['examples_per_s'] == 640
  times = [found[key] for key in ('least', 'times_official', 'most')]
  assert times == [8, 10, 12]


def test_bad_checkouts_are_told(tmp_path, monkeypatch):
  with pytest.raises(errors.UsageError, match='--checkout is missing'):
    official.check(None)
  with pytest.raises(errors.UsageError, match=r'no model/din_pytorch.py'):
    official.check(str(tmp_path))
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'din_pytorch.py').write_text('class Other: pass')
  monkeypatch.setattr(official.importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(errors.UsageError, match='needs torch'):
    official.check(str(tmp_path))


class _Counter:
  def __init__(self, start: int) -> None:
    if start < 0:
      raise errors.UsageError('below 0')
    self.value = start

  def add(self, number: int) -> int:
    self.value += number
    return self.value


def test_a_worker_keeps_its_object_and_tells_errors():
  worker = process.Worker(None, _Counter, 3)
  try:
    assert worker.call('add', 4) == 7
    assert worker.call('add', 4) == 11
  finally:
    worker.close()
  with pytest.raises(errors.UsageError, match='below 0'):
    process.Worker(None, _Counter, -1)


def test_a_killed_process_is_told():
  with pytest.raises(errors.UsageError, match='has been killed'):
    process.run_fresh(None, os.abort)


def test_peak_memory_is_this_process_alone():
  held = np.ones(30_000_000)  # 240 MB, touched.
  assert process.peak_mb() > 240
  assert process.run_fresh(None, process.peak_mb) < process.peak_mb() - 200
  assert held[0] == 1


def test_our_side_has_the_published_sizes():
  shape = random_log.Shape(rows=50, categories=9, distinct=40)
  options = peer.published(base.get_config(), shape, 19).options
  targets = 1 + options.data.num_negatives
  assert options.train.batch_size * targets == 2049
  assert options.train.moments_per_window == 19
