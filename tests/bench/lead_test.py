"""Tests of the leads over several comparisons."""

import json

import pytest

from dare_jax import errors
from dare_jax.bench import lead
from dare_jax.bench import lead_figure

DATA = {
  'log': 'made',
  'moments': 1000,
  'items': 500,
  'moments_an_item': 2.0,
  'epochs': 1.002,
  'history_length': 20,
}


def summary(mean):
  return {'mean': mean, 'std': 0.0}


@pytest.fixture
def comparison(tmp_path, monkeypatch):
  monkeypatch.setattr(lead, '_data', lambda runs, base: DATA)
  rows = [
    {'model': 'dare', 'seeds': 3, 'auc': summary(0.8)},
    {'model': 'twin', 'seeds': 3, 'auc': summary(0.78)},
    {'model': 'din', 'seeds': 0},  # Has not run.
  ]
  for row, loss in zip(rows[:2], (0.4, 0.5), strict=True):
    row['logloss'] = summary(loss)
    row['auc_item_seen'] = summary(row['auc']['mean'] + loss / 4)
  rows[1]['auc_difference'] = {'mean': -0.02, 'low': -0.03, 'high': -0.015}
  folder = tmp_path / 'one'
  folder.mkdir()
  table = {'base': 'dare', 'rows': rows}
  (folder / 'table.json').write_text(json.dumps(table))
  return folder


def test_a_lead_is_the_base_minus_the_model(comparison):
  (row,) = lead.rows_of(comparison)
  assert row['comparison'] == 'one' and row['model'] == 'twin'
  assert (row['lead'], row['lead_low'], row['lead_high']) == (0.02, 0.015, 0.03)
  # 0.8 + 0.4 / 4 - (0.78 + 0.5 / 4).
  assert row['lead_item_seen'] == pytest.approx(-0.005)
  assert row['lead_item_unseen'] is None
  assert row['moments_an_item'] == 2.0
  assert lead.rows_of(comparison, ['din']) == []


def test_a_figure_has_a_panel_for_each_length(comparison, tmp_path):
  (row,) = lead.rows_of(comparison)
  path = tmp_path / 'lead.png'
  lead_figure.draw([row, row | {'epochs': 4.0, 'moments_an_item': 9.0}], path)
  assert path.read_bytes().startswith(b'\x89PNG')


def test_what_is_no_comparison_is_refused(comparison, tmp_path):
  with pytest.raises(errors.UsageError, match='holds no table.json'):
    lead.rows_of(tmp_path)
  table = json.loads((comparison / 'table.json').read_text())
  del table['rows'][0]['auc']
  (comparison / 'table.json').write_text(json.dumps(table))
  with pytest.raises(errors.UsageError, match='dare has no finished run'):
    lead.rows_of(comparison)
