"""Models and their seeds, and differences, worked out by hand."""

import numpy as np
import pytest

from dare_jax.analysis import source as source_lib
from dare_jax.analysis.quality import compared
from dare_jax.configs import base
from dare_jax.evaluation import metrics


def source(label, **fields):
  config = base.get_config()
  config.update_from_flattened_dict(
    {name.replace('__', '.'): value for name, value in fields.items()}
  )
  return source_lib.Source(label, label, 1, config, {})


def predictions(logit):
  """One user; two clicks, two others."""
  return metrics.Predictions(
    np.array(logit, np.float32), np.array([1, 1, 0, 0]), np.ones(4),
    np.zeros(4, int), np.zeros(4, int),
  )  # fmt: skip


def test_runs_that_differ_in_the_seed_are_one_model():
  made = compared.groups(
    [
      source('dare-1', seed=1),
      source('twin', model__name='twin'),
      source('dare-2', seed=2, data__data_dir='elsewhere'),
      source('again', seed=2),
    ]
  )
  assert [group.label for group in made] == ['dare', 'twin', 'again']
  assert sorted(made[0].runs) == [1, 2]


def test_means_and_paired_differences():
  base_group = compared.Group('a', {1: source('a1'), 2: source('a2', seed=2)})
  other = compared.Group('b', {2: source('b2', seed=2)})
  of = {
    'a1': predictions([4, 3, 2, 1]),  # AUC 1
    'a2': predictions([4, 2, 3, 1]),  # 3/4
    'b2': predictions([2, 1, 4, 3]),  # 0
  }
  drawn = {
    'all': {
      label: np.array([of[label].report().values['auc']] * 3) for label in of
    }
  }
  row = compared.row(base_group, base_group, of, drawn)
  assert row['metrics']['auc']['mean'] == pytest.approx(7 / 8)
  assert row['metrics']['auc']['std'] == pytest.approx(
    np.std([1, 0.75], ddof=1)
  )
  assert row['slices']['all'] == {'auc': 7 / 8, 'difference': None}
  row = compared.row(other, base_group, of, drawn)
  assert row['metrics']['auc'] == {'mean': 0.0, 'std': None}
  # Seed 2 beside seed 2.
  assert row['slices']['all']['difference']['mean'] == pytest.approx(-0.75)


def test_without_common_seeds_runs_are_paired_in_their_order():
  one = compared.Group('a', {1: source('a1'), 2: source('a2', seed=2)})
  other = compared.Group('b', {3: source('b3', seed=3)})
  assert compared._pairs(other, one) == [('b3', 'a1')]
