"""A small fault campaign: kills leave no trace; the campaign sees what does."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.campaign import campaign
from tests.campaign import disks
from tests.campaign import lives
from tests.campaign import trials

_SIZE = ('--kills=2', '--restarts=0', '--damages=0', '--starved=0')


@pytest.mark.slow
def test_a_small_campaign(tmp_path):
  """In a process of its own, which forks trainings before JAX starts."""
  output = tmp_path / 'rows.json'
  command = [sys.executable, '-m', 'tests.campaign', *_SIZE]
  command += ['--clocks=0', f'--folder={tmp_path / "f"}', f'--output={output}']
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  rows = json.loads(output.read_text())['rows']
  trials = (tmp_path / 'f' / 'trials.jsonl').read_text()
  assert sum(row['faults'] for row in rows) == 2, trials
  assert all(row['wrong'] == row['lost_steps'] == 0 for row in rows), trials
  again = subprocess.run(command, capture_output=True, text=True, check=False)
  assert again.returncode == 0, again.stderr
  assert json.loads(output.read_text())['rows'] == rows  # Nothing is repeated.


def test_a_whole_campaign_is_as_large_as_promised():
  planned = campaign.plan(100, 20, 20, 10, 3)
  names = [trial.name for trial in planned]
  assert len(set(names)) == len(names)
  signals = [trial for trial in planned if trial.fault.startswith('SIG')]
  assert len(signals) == 20
  assert sum('2 processes' in trial.fault for trial in signals) == 4


class _Ended:
  """A trial's workdir beside the reference it is compared with."""

  def __init__(self, folder):
    self.bench = trials.Bench(folder, (), folder / 't' / 'run')
    for path in (self.bench.workdir, self.bench.reference(1)):
      path.mkdir(parents=True)
      lines = [{'step': s, 'time_s': 7.0, 'train/loss': 1 / s} for s in (1, 2)]
      text = ''.join(json.dumps(line) + '\n' for line in lines)
      (path / 'metrics.jsonl').write_text(text)
      (path / 'result.json').write_text('{"test": {"auc": 0.5}}')
      np.savez(path / 'predictions_test.npz', logit=np.arange(3.0))


@pytest.mark.parametrize(
  ('name', 'old', 'new', 'told'),
  [
    ('metrics.jsonl', b'7.0', b'9.0', ''),  # Only time_s: the clock may differ.
    ('metrics.jsonl', b'0.5', b'0.6', 'another metrics.jsonl'),
    ('result.json', b'0.5', b'0.6', 'another result.json'),
  ],
)
def test_a_difference_is_seen(tmp_path, name, old, new, told):
  bench = _Ended(tmp_path).bench
  assert bench.difference(1) == ''
  path = bench.workdir / name
  path.write_bytes(path.read_bytes().replace(old, new))
  assert bench.difference(1) == told


def test_other_predictions_are_seen(tmp_path):
  bench = _Ended(tmp_path).bench
  path = bench.workdir / 'predictions_test.npz'
  np.savez(path, logit=np.nextafter(np.arange(3.0), 9))
  assert bench.difference(1) == 'other predictions'


def test_what_counts_as_a_clear_refusal():
  end = lives.End((2,), '', 'error: the disk is full\n', 1.0)
  assert end.refused
  for code, err in (
    (1, 'error: the disk is full\n'),
    (2, 'error: one\nerror: two\n'),
    (2, 'Traceback (most recent call last):\nerror: the disk is full\n'),
    (2, ''),
  ):
    assert not lives.End((code,), '', err, 1.0).refused


def test_damage_changes_the_file(tmp_path):
  path = pathlib.Path(tmp_path / 'f')
  for seed in range(20):
    path.write_bytes(bytes(range(50)))
    disks.damage(path, np.random.default_rng(seed))
    assert path.read_bytes() != bytes(range(50))
