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
  'device_check.sh': ([], ['-m dare_jax.device_check --output=device_check/']),
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
  assert {path.name for path in _FOLDER.glob('*.sh')} == set(_CASES)


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


def _gcloud(folder: pathlib.Path, body: str) -> dict[str, str]:
  """Returns an environment in which gcloud is a script."""
  path = folder / 'bin' / 'gcloud'
  path.parent.mkdir()
  path.write_text(f'#!/usr/bin/env bash\n{body}\n')
  path.chmod(0o755)
  return os.environ | {'PATH': f'{path.parent}{os.pathsep}{os.environ["PATH"]}'}


def test_a_second_copy_to_a_pod_replaces_the_first(tmp_path):
  """Where copies are as `cp -r` makes them, which is how scp does."""
  checkout, worker = tmp_path / 'my checkout', tmp_path / 'worker'
  (checkout / 'launch').mkdir(parents=True)
  worker.mkdir()
  shutil.copy(_FOLDER / 'tpu_pod.sh', checkout / 'launch')
  # gcloud compute tpus tpu-vm scp .. FROM NAME:TO
  body = f"""[[ $4 == scp ]] || exit 0
    target=${{@: -1}}
    cp -r "${{@: -2:1}}" "{worker}/${{target#*:}}\""""
  environment = _gcloud(tmp_path, body)
  for content in ('first', 'second'):
    (checkout / 'code').write_text(content)
    done = subprocess.run(
      [checkout / 'launch' / 'tpu_pod.sh', 'pod', 'us-a', _WORKDIR],
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    copies = sorted(worker.rglob('code'))
    assert copies == [worker / 'my checkout' / 'code']
    assert copies[0].read_text() == content


def test_a_slice_that_cannot_be_had_is_not_waited_for(tmp_path):
  """It was not there, was asked for, and has failed."""
  states = tmp_path / 'states'
  states.write_text('NONE\nFAILED\n')
  body = f"""[[ $4 == describe ]] || exit 0
    head -n 1 {states} && sed -i 1d {states}"""
  done = subprocess.run(
    [
      'bash',
      str(_FOLDER / 'queued_resource.sh'),
      'pod',
      'us-a',
      'v5litepod-16',
    ],
    env=_gcloud(tmp_path, body),
    capture_output=True,
    text=True,
    check=False,
    timeout=20,
  )
  assert done.returncode == 1
  assert 'create pod' in done.stdout
  assert 'pod is FAILED: run the same command' in done.stderr


def test_each_process_of_a_host_sees_all_of_its_gpus():
  """JAX takes the one of the process's number there; the others are taken."""
  options = dict(
    line.removeprefix('#SBATCH --').split('=')
    for line in (_FOLDER / 'slurm.sh').read_text().splitlines()
    if line.startswith('#SBATCH') and '=' in line
  )
  assert 'gpus-per-task' not in options
  assert options['gpus-per-node'] == options['ntasks-per-node']


def test_shellcheck():
  scripts = [str(_FOLDER / script) for script in _CASES]
  beside = f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.defpath}'
  checker = shutil.which('shellcheck', path=beside)
  assert checker, "pip install -e '.[test]' brings it"
  done = subprocess.run(
    [checker, *scripts], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout
