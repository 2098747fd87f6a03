"""Synthetic histories of any length, with a known relevance."""

from __future__ import annotations

import pathlib

import numpy as np
import polars as pl

from dare_jax.logs import event_log
from dare_jax.logs import id_map
from dare_jax.logs import raw_log
from dare_jax.logs.builders import base
from dare_jax.logs.builders import synthetic

TRUTH_DIR = 'truth'


class SyntheticLifelong(base.LogBuilder):
  """A made log; `dare_jax/logs/builders/synthetic.py` defines the process.

  The whole catalogue is kept, whatever occurs in the log: item i has the dense
  id i + 2, category j has j + 2.
  """

  READS_INPUT = False

  @property
  def schema(self) -> event_log.LogSchema:
    return event_log.LogSchema()

  @property
  def _spec(self) -> synthetic.Spec:
    assert self.options.synthetic is not None
    return self.options.synthetic

  def read_log(self) -> event_log.EventLog:
    """Draws the events of all users."""
    spec = self._spec
    log = synthetic.generate(spec)
    rows = len(log.item)
    report = raw_log.RowReport(rows_read=rows, rows_kept=rows)
    report.notes.append(
      'made, not logged: its categories and recency decay are planted'
    )
    sizes = {
      'user': spec.num_users,
      'item': spec.num_items,
      'category': spec.num_categories,
    }
    return event_log.EventLog(
      log.offsets,
      {
        'item_id': log.item + np.int32(id_map.FIRST),
        'category_id': log.category + np.int32(id_map.FIRST),
        'timestamp': log.timestamp,
      },
      {field: pl.int_range(size, eager=True) for field, size in sizes.items()},
      report,
    )

  def extra_files(self, directory: pathlib.Path) -> None:
    spec = self._spec
    truth = synthetic.make_truth(spec)
    synthetic.save_truth(truth, spec, directory / TRUTH_DIR)
