"""Means of a log window, and what is not defined in one."""

import jax.numpy as jnp
import pytest

from dare_jax.training import log_window


def _sums(**changes):
  sums = {
    'steps': 2.0,
    'loss': 3.0,
    'logloss': 4.0,
    'aux_logloss': 6.0,
    'right': 5.0,
    'prob': 1.5,
    'label': 2.0,
    'weight': 8.0,
  }
  assert set(sums) == set(log_window.SUM_NAMES)
  return {name: jnp.array(value) for name, value in (sums | changes).items()}


def test_means():
  report = log_window.summarize(_sums())
  assert report.left_out == {}
  assert report.values == pytest.approx(
    {
      'loss': 3 / 2,
      'logloss': 4 / 8,
      'aux_logloss': 6 / 8,
      'accuracy': 5 / 8,
      'calibration': 1.5 / 2,
    }
  )


def test_a_window_of_less_than_one_in_weight_is_still_a_mean():
  report = log_window.summarize(_sums(weight=0.5, label=0.25, right=0.5))
  assert report.values['accuracy'] == 1
  assert report.values['calibration'] == 6


def test_what_is_not_defined_is_left_out():
  report = log_window.summarize(_sums(label=0.0))
  assert report.left_out == {'calibration': 'no target has label 1'}
  assert 'calibration' not in report.values and len(report.values) == 4
  report = log_window.summarize(log_window.zero_sums())
  assert report.values == {} and len(report.left_out) == 5
  report = log_window.summarize(_sums(prob=float('nan'), loss=float('inf')))
  assert report.left_out == dict.fromkeys(
    ('loss', 'calibration'), 'it is not finite'
  )
