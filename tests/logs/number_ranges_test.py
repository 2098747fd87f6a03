"""Ranges of numbers, and a log, a run and a bundle that have them."""

import math

import numpy as np
import polars as pl
import pytest

from dare_jax import trained
from dare_jax.logs.values import number_ranges
from tests import tiny


def test_a_number_is_between_the_edges_of_its_range():
  rng = np.random.default_rng(0)
  numbers = np.exp(rng.normal(scale=9, size=500)) * rng.choice([-1, 1], 500)
  for number in numbers.tolist():
    low, high = map(float, number_ranges.label(number).split(' to '))
    slack = 1e-3 * abs(number)  # Of edges in four digits.
    assert low - slack <= number <= high + slack
    assert max(abs(low), abs(high)) < 1.42 * min(abs(low), abs(high))


def test_equal_numbers_have_one_name_however_they_are_written():
  assert len(set(number_ranges.labels([2, 2.0, '2', '2.00', '2e0']))) == 1
  assert number_ranges.labels([0, '-0.0', None, math.nan]) == [
    *('0', '0', None, None)
  ]


def test_a_name_and_other_text_stay_as_they_are():
  once = number_ranges.labels([3.5, -3.5, 0, 'n/a', ''])
  assert number_ranges.labels(once) == once


def test_series():
  for values in ([1.5, None, 3.0, 1.5], ['1.5', '', 'x', None]):
    found = number_ranges.of_series(pl.Series('price', values))
    assert found.to_list() == number_ranges.labels(values)
    assert found.name == 'price'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run on a log with a price beside each row, and one of the moment."""
  root = tmp_path_factory.mktemp('numbers')
  tiny.write_log(root / 'log.csv')
  log = pl.read_csv(root / 'log.csv')
  number = np.arange(len(log))
  log = log.with_columns(
    price=pl.Series(1.0 + number % 7), budget=pl.Series(10.0 * (number % 3))
  )
  log.write_csv(root / 'log.csv')
  made = tiny.config(
    root,
    data__columns__fields=('price',),
    data__columns__context=('budget',),
    data__columns__numbers=('price', 'budget'),
    train__steps=2,
    eval__every_steps=0,
    checkpoint__every_steps=0,
  )
  tiny.run(made, root / 'run')
  return trained.load(root / 'run')


@pytest.mark.slow
def test_raw_numbers_are_known_by_their_ranges(run):
  store = run.experiment.store
  assert store.numbers == ('price', 'budget')
  assert set(store.raw_ids('price')) == set(number_ranges.labels(range(1, 8)))
  near = run.ids('price', [3, 3.1, '3', 100, None])
  assert near[0] == near[1] == near[2] > 1
  assert near[3] == near[4] == 1
  history = {'item': ['i5'], 'category': ['c5'], 'price': [2.0]}
  logits = [
    run.score(history, {**history, 'price': [price]}, {'budget': 10})
    for price in (6.0, 6.5, 2.0)
  ]
  assert logits[0] == logits[1] != logits[2]


def test_numbers_are_among_further_fields(tmp_path, capsys):
  tiny.write_log(tmp_path / 'log.csv')
  made = tiny.config(tmp_path, data__columns__numbers=('price',))
  text = tiny.refusal(lambda: tiny.run(made, tmp_path / 'run'), capsys)
  assert "'price' is no further field" in text
