"""Launch scripts: what they would run, and that the shell has no complaint."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

_FOLDER = pathlib.Path(__file__).parents[1] / 'launch'
_WORKDIR = '--workdir=gs://bucket/my run'
# Script -> arguments before those of train, and what must be printed.
_CASES = {
  'local.sh': (['2'], ['--num_processes=2 --process_id=1']),
  'tpu_pod.sh': (['pod', 'us-a'], ['--worker=all', 'dare_jax.train']),
  'queued_resource.sh': (
    ['pod', 'us-a', 'v5litepod-16'],
    ['--accelerator-type=v5litepod-16', '--spot', 'tpu-vm ssh pod'],
  ),
  'gke.sh': (['c', 'v5litepod-16', 'i'], ['xpk workload create --cluster=c']),
  'kubernetes.sh': (['4', '8', 'image'], ['completions: 4', 'gpu: 8']),
  'slurm.sh': ([], ['srun', '-m dare_jax.train --distributed']),
  'skypilot.sh': (['A100:8', '2'], ['num_nodes: 2', 'use_spot: true']),
}


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    ['bash', str(_FOLDER / script), *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


def test_all_scripts_are_here():
  assert {path.name for path in _FOLDER.iterdir()} == set(_CASES)


@pytest.mark.parametrize('script', _CASES)
def test_dry_run(script):
  own, printed = _CASES[script]
  done = _run(script, '--dry-run', *own, _WORKDIR, '--config.seed=2')
  assert done.returncode == 0, done.stderr
  for text in (*printed, '--config.seed=2'):
    assert text in done.stdout
  assert 'my run' in done.stdout.replace('\\', '')
  if script in ('kubernetes.sh', 'skypilot.sh'):
    assert yaml.safe_load(done.stdout)


@pytest.mark.parametrize('script', [s for s, (own, _) in _CASES.items() if own])
def test_usage(script):
  done = _run(script)
  assert done.returncode == 2
  assert f'usage: launch/{script}' in done.stderr


def test_shellcheck():
  scripts = [str(_FOLDER / script) for script in _CASES]
  beside = f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.defpath}'
  checker = shutil.which('shellcheck', path=beside)
  assert checker, "pip install -e '.[test]' brings it"
  done = subprocess.run(
    [checker, *scripts], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout
