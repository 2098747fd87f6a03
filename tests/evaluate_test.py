"""The command that evaluates: what it prints, and what it refuses first."""

import subprocess
import sys

import pytest

from dare_jax import errors
from dare_jax import evaluate
from dare_jax.experiments import experiment
from tests import tiny


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  root = tmp_path_factory.mktemp('evaluate')
  tiny.write_log(root / 'log.csv')
  tiny.run(tiny.config(root, train__steps=4), root / 'run')
  return root / 'run'


@pytest.mark.slow
def test_prints_nothing_but_the_metrics(workdir):
  done = subprocess.run(
    [sys.executable, '-m', 'dare_jax.evaluate', f'--workdir={workdir}'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0
  assert done.stderr == ''
  assert done.stdout.startswith(f'{workdir}, step 4, test:\n  auc ')


def test_a_step_is_a_number_or_its_text(workdir):
  assert evaluate.evaluate(workdir, which=3) == evaluate.evaluate(
    workdir, which='3'
  )


@pytest.mark.parametrize(
  ('split', 'which', 'named'),
  [
    ('tset', 'best', '--split=tset: expected one of train, val, test'),
    ('test', 'bset', '--checkpoint=bset: expected best, last or a step'),
    ('test', '99', 'no checkpoint of step 99; there are 3, 4'),
    ('test', 99, 'no checkpoint of step 99; there are 3, 4'),
    ('test', '\N{SUPERSCRIPT TWO}', 'expected best, last or a step'),
  ],
)
def test_refuses_before_anything_is_read(
  workdir, monkeypatch, split, which, named
):
  monkeypatch.setattr(experiment, 'load', lambda *_, **__: pytest.fail('read'))
  with pytest.raises(errors.UsageError, match=named):
    evaluate.evaluate(workdir, split, which)
