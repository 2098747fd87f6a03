"""How the figures of compilers are compared."""

from __future__ import annotations

import json

import pytest

from tests.aot import figures

_ROW = {'topology': 'h100:1x1x8', 'temporary_mb': 100.0, 'registers': 100}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
  monkeypatch.setattr(figures, '_PATH', tmp_path / 'figures.json')
  monkeypatch.setattr(figures, 'compiler_of', lambda _: 'compiler 1')
  monkeypatch.setenv('DARE_JAX_FIGURES', 'write')
  figures.compare('step', _ROW)
  monkeypatch.delenv('DARE_JAX_FIGURES')
  return tmp_path / 'figures.json'


def test_what_is_within_five_percent_passes():
  figures.compare('step', _ROW | {'temporary_mb': 104.9, 'registers': 96})


def test_what_the_assembler_says_may_be_missing():
  figures.compare('step', {**_ROW, 'registers': None})


@pytest.mark.parametrize(
  'change',
  [{'temporary_mb': 105.2}, {'registers': 106}, {'temporary_mb': None}],
)
def test_what_is_not_fails(change):
  with pytest.raises(AssertionError):
    figures.compare('step', _ROW | change)


def test_another_compiler_or_target_is_skipped(kept):
  with pytest.raises(pytest.skip.Exception, match='of none'):
    figures.compare('another', _ROW)
  old = json.loads(kept.read_text())
  old['step']['compiler'] = 'compiler 0'
  kept.write_text(json.dumps(old))
  with pytest.raises(pytest.skip.Exception, match='compiler 0'):
    figures.compare('step', _ROW | {'temporary_mb': 500.0})
