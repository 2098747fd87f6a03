"""The tables of docs/models.md say what the code does."""

import pathlib
import re

import pytest

from dare_jax import aggregate
from dare_jax import embeddings
from dare_jax import models
from dare_jax import search

_PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'models.md'


def _rows():
  """Yields the cells of each row of each table, and the table's first head."""
  head = None
  for line in _PAGE.read_text().splitlines():
    if not line.startswith('|'):
      head = None
      continue
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    if head is None:
      head = cells[0]
    elif not set(line) <= set('|- '):
      yield head, cells


def _presets():
  """Returns preset -> the four choices that the page gives it."""
  found = {}
  for head, cells in _rows():
    if head != 'preset':
      continue
    names = re.findall(r'`(\w+)`', cells[0])
    columns = []
    for cell in cells[2:]:
      values = cell.partition(';')[0].split(', ')
      columns.append(values * len(names) if len(values) == 1 else values)
    found |= dict(zip(names, zip(*columns, strict=True), strict=True))
  return found


def test_every_preset_is_in_the_table():
  assert set(_presets()) == set(models.PRESETS)


@pytest.mark.parametrize('name', models.PRESETS)
def test_choices_of_a_preset(name):
  config = models.build(name, vocab_sizes={'item': 9, 'category': 9}).config
  choices = config.plan, config.scorer, config.search, config.aggregation
  assert _presets()[name] == choices


@pytest.mark.parametrize(
  ('head', 'known'),
  [
    ('search', search.SEARCHES),
    ('scorer', search.SCORERS),
    ('aggregation', aggregate.AGGREGATIONS),
    ('plan', {name for name in embeddings.PLANS if 'by_role' not in name}),
  ],
)
def test_every_choice_is_explained(head, known):
  told = [
    name
    for of, cells in _rows()
    if of == head
    for name in re.findall(r'`(\w+)`', cells[0])
  ]
  assert set(told) == set(known)
