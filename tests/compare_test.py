"""Comparisons: restarts, failures and what is written."""

import json
import subprocess
import sys
import time

import pytest

from dare_jax import cli
from dare_jax import errors
from dare_jax import plots
from dare_jax.comparison import children
from dare_jax.comparison import figure
from dare_jax.comparison import plan
from dare_jax.comparison import runs as runs_lib
from dare_jax.comparison import summary
from dare_jax.comparison import table
from dare_jax.configs import base
from dare_jax.evaluation import metrics
from tests.comparison import bootstrap_test

# Stands for `train`: what it does is named by the workdir.
_FAKE = """
import json, os, pathlib, signal, sys, time
workdir = pathlib.Path(sys.argv[-1].removeprefix('--workdir='))
workdir.mkdir(parents=True, exist_ok=True)
with (workdir / 'starts').open('a') as file:
  file.write('.')
print('step 1/2  val/auc 0.5', flush=True)
kind = workdir.name
def stop(*unused):
  (workdir / 'saved').touch()
  os.write(1, b'\\nstopped by SIGTERM: nothing to save; run it again\\n')
  sys.exit(75)
signal.signal(signal.SIGTERM, stop)
if 'raise' in kind:
  raise ValueError('no luck')
if 'refuse' in kind:
  sys.exit('error: optim.learning_rate is too high')
if 'killed' in kind:
  signal.raise_signal(signal.SIGKILL)
if 'slow' in kind and not (workdir / 'saved').exists():
  while True:
    print('step 1/2', flush=True)
    time.sleep(0.02)
result = json.loads(sys.argv[1])
(workdir / 'result.json').write_text(json.dumps(result))
"""


def result(auc=0.7, config_hash=''):
  return {
    'test': {'auc': auc},
    'examples_per_s': 10.0,
    'train_time_s': 2.0,
    'parameters': dict.fromkeys(
      ('attention_tables', 'representation_tables', 'other'), 5
    ),
    'environment': {'python': '3', 'devices': ['cpu']},
    'config_hash': config_hash,
  }


@pytest.fixture
def fake(tmp_path, monkeypatch):
  """Returns a function that runs fake runs of the given labels."""
  script = tmp_path / 'fake.py'
  script.write_text(_FAKE)
  monkeypatch.setattr(runs_lib, 'TRAIN', (sys.executable, str(script)))
  monkeypatch.setattr(runs_lib, 'CHECK', (sys.executable, '-c', ''))
  monkeypatch.setattr(plan.PlannedRun, 'is_finished', plan.PlannedRun.result)

  def run(labels, stop=None, on_change=lambda outcomes: None):
    variants = plan.parse_models([f'{label}=dare' for label in labels])
    planned = plan.plan(base.get_config(), variants, 1, tmp_path / 'out')
    outcomes = runs_lib.run_all(
      planned,
      [json.dumps(result())],
      tmp_path / 'out',
      stop or children.Stop(),
      on_change,
    )
    return [outcomes[run.workdir] for run in planned]

  run.starts = lambda label: len(
    (tmp_path / 'out' / 'runs' / f'{label}-1' / 'starts').read_text()
  )
  return run


def test_a_failed_run_has_its_reason_and_stops_no_other(fake, capfd):
  seen = []
  outcomes = fake(
    ['raise', 'refuse', 'killed', 'good'],
    on_change=lambda outcomes: seen.append(len(outcomes)),
  )
  assert [outcome.reason for outcome in outcomes] == [
    'ValueError: no luck',
    'optim.learning_rate is too high',
    'killed by SIGKILL',
    None,
  ]
  assert outcomes[3].result['test'] == {'auc': 0.7}
  assert seen == [0, 1, 2, 3, 4]
  shown = capfd.readouterr().out
  assert '[2/4] refuse, seed 1: failed: optim.learning_rate is too' in shown
  assert '[4/4] good, seed 1: done, test AUC 0.7000' in shown
  assert 'about 0:00:' in shown


def test_finished_runs_are_kept_and_failed_ones_repeated(fake, capfd):
  fake(['raise', 'good'])
  fake(['raise', 'good', 'more'])
  assert [fake.starts(label) for label in ('raise', 'good', 'more')] == [
    2,
    1,
    1,
  ]
  assert '1 of 3 runs were finished before' in capfd.readouterr().out


@pytest.mark.parametrize('content', ['{"test', '[1]', '{"seed": 1}', '\0'])
def test_a_damaged_result_is_made_anew(fake, tmp_path, content):
  whole = fake(['good'])
  (tmp_path / 'out' / 'runs' / 'good-1' / 'result.json').write_text(content)
  assert fake(['good']) == whole
  assert fake.starts('good') == 2


@pytest.mark.parametrize('name', ['runs/lock', 'runs/good-1.log'])
def test_what_cannot_be_written_is_one_line(fake, tmp_path, name):
  (tmp_path / 'out' / name).mkdir(parents=True)
  with pytest.raises(errors.UsageError, match=f'{name}: cannot be written'):
    fake(['good'])


def test_a_signal_reaches_the_run_which_saves(fake, tmp_path):
  stop = children.Stop()
  passed_to = stop.passed_to

  def interrupted(process):
    if process.args[-1].endswith('slow-1'):
      stop.request()
      time.sleep(0.5)  # The fake has its handler by the next one.
    return passed_to(process)

  stop.passed_to = interrupted
  with pytest.raises(errors.Stopped, match='slow, seed 1: nothing to save$'):
    fake(['good', 'slow', 'more'], stop)
  assert (tmp_path / 'out' / 'runs' / 'slow-1' / 'saved').exists()
  assert not (tmp_path / 'out' / 'runs' / 'more-1').exists()
  outcomes = fake(['good', 'slow', 'more'])
  assert all(outcome.result for outcome in outcomes)
  assert [fake.starts(label) for label in ('good', 'slow', 'more')] == [1, 2, 1]


_HOLD = """
import dataclasses, pathlib, subprocess, sys
from dare_jax.process import locks
path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True)
lock = locks.Lock(path)
# What a run does, which inherits the lock.
run = subprocess.Popen(
  [sys.executable, '-c', 'import time; time.sleep(1.5)'],
  pass_fds=[lock.fileno()],
)
print(locks.Holder.parse(path.read_bytes()), flush=True)
input()
"""


@pytest.fixture
def other(tmp_path):
  """Another comparison in the folder, with a run that takes a second."""
  lock = tmp_path / 'out' / 'runs' / 'lock'
  with subprocess.Popen(
    [sys.executable, '-c', _HOLD, lock],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    process.holder = process.stdout.readline().strip()
    yield process
    process.kill()


def test_another_comparison_is_named(fake, other, tmp_path):
  begin = time.monotonic()
  with pytest.raises(errors.UsageError) as refusal:
    fake(['good'])
  assert time.monotonic() - begin < 1
  assert f'out: {other.holder}, is comparing there;' in str(refusal.value)
  assert 'another --output' in str(refusal.value)
  assert not (tmp_path / 'out' / 'runs' / 'good-1').exists()


def test_the_run_that_a_killed_comparison_leaves_is_waited_for(
  fake, other, capfd
):
  other.kill()
  other.wait()
  assert fake(['good'])[0].result
  found = capfd.readouterr().err
  assert f'that a command ({other.holder}), now ended, has left' in found
  assert fake(['good', 'more'])[1].result


def test_models_are_checked_before_the_first_run(
  fake, monkeypatch, tmp_path, capfd
):
  refuses = 'import sys; print("preparing"); sys.exit("error: --models: b: no")'
  monkeypatch.setattr(runs_lib, 'CHECK', (sys.executable, '-c', refuses))
  with pytest.raises(errors.UsageError, match='^--models: b: no$'):
    fake(['good', 'b'])
  assert 'preparing' in capfd.readouterr().err
  assert not (tmp_path / 'out' / 'runs' / 'good-1').exists()
  # What is finished, or has begun, is not checked again.
  monkeypatch.setattr(plan.PlannedRun, 'has_begun', lambda run: True)
  assert fake(['good'])[0].result


def _planned(tmp_path, seeds):
  variants = plan.parse_models(['twin', 'dare', 'bad=dare:attention_dim=8'])
  return plan.plan(base.get_config(), variants, seeds, tmp_path)


@pytest.fixture
def summarized(tmp_path):
  """The table of twin (0.70), dare (0.75, better) and one that failed."""
  runs = _planned(tmp_path, 2)
  outcomes = {}
  for run in runs:
    label, seed = run.variant.label, run.seed
    if label == 'bad':
      outcomes[run.workdir] = runs_lib.Outcome(None, 'no | luck')
      continue
    is_dare = label == 'dare'
    value = result(0.7 + 0.05 * is_dare + 0.001 * seed)
    outcomes[run.workdir] = runs_lib.Outcome(value)
    run.workdir.mkdir(parents=True)
    metrics.save(
      bootstrap_test.made(seed, skill=1.0 + is_dare),
      run.workdir / 'predictions_test.npz',
    )
  return summary.Summary(runs, 'twin', 'the command').table(outcomes)


def test_table_json(summarized):
  assert json.loads(json.dumps(summarized)) == summarized
  assert summarized['base'] == 'twin'
  twin, dare, bad = summarized['rows']
  assert (twin['status'], dare['status'], bad['status']) == (
    *('done', 'done', 'failed'),
  )
  assert (twin['reason'], bad['reason']) == (None, 'seeds 1, 2: no | luck')
  assert (twin['seeds'], bad['seeds']) == (2, 0)
  assert dare['auc'] == {
    'mean': pytest.approx(0.7515),
    'std': pytest.approx(0.001 / 2**0.5),
  }
  assert 'auc' not in bad and 'auc_difference' not in twin
  found = dare['auc_difference']
  assert 0 < found['low'] < found['mean'] < found['high']
  assert [one['seed'] for one in found['by_seed']] == [1, 2]
  mean = sum(one['mean'] for one in found['by_seed']) / 2
  assert found['mean'] == pytest.approx(mean)
  assert dare['parameters']['other'] == 5
  assert dare['examples_per_s'] == {'mean': 10.0, 'std': 0.0}


def test_models_without_auc(tmp_path):
  """Undefined in one seed, it is no mean over the other; and that is said."""
  runs = _planned(tmp_path, 2)
  outcomes = {}
  for run in runs:
    value = result() | {'left_out': {'auc_item_seen': 'there are no targets'}}
    if run.variant.label == 'dare' and run.seed == 2:
      reasons = {'auc': '3 of 9 logits are not numbers'}
      value |= {'test': {'logloss': 0.5}, 'left_out': reasons}
    if run.variant.label == 'bad':
      reasons = dict.fromkeys(('auc', 'gauc'), 'all 9 labels are 1')
      value |= {'test': {'logloss': 0.25}, 'left_out': reasons}
    run.workdir.mkdir(parents=True)
    labels = bootstrap_test.made(run.seed, skill=1.0)
    if run.variant.label == 'bad':
      labels.label[:] = 1
    metrics.save(labels, run.workdir / 'predictions_test.npz')
    outcomes[run.workdir] = runs_lib.Outcome(value)
  made = summary.Summary(runs, 'twin', '').table(outcomes)
  twin, dare, bad = made['rows']
  assert 'auc' in twin and 'auc' not in dare and 'auc' not in bad
  assert bad['logloss']['mean'] == 0.25 and 'logloss' not in dare
  assert 'auc_difference' not in bad
  assert json.loads(json.dumps(made)) == made
  for page in (table.text(made), table.markdown(made, True)):
    assert 'bad, left out: auc, gauc (all 9 labels are 1)' in page
    assert '; auc (3 of 9 logits are not numbers)' in page
    assert 'twin, left out: auc_item_seen (there are no targets)' in page
  assert figure.draw(made, tmp_path / 'comparison.png')
  only = {'rows': [bad], 'base': 'bad'}
  assert not figure.draw(only, tmp_path / 'none.png')


def test_unfinished_models_say_so(tmp_path):
  runs = _planned(tmp_path, 2)
  outcomes = {runs[0].workdir: runs_lib.Outcome(result())}
  rows = summary.Summary(runs, 'twin', '').table(outcomes)['rows']
  assert [row['status'] for row in rows] == ['unfinished'] * 3
  assert rows[0]['auc'] == {'mean': 0.7, 'std': None}


def test_text_and_markdown(summarized):
  lines = table.text(summarized).splitlines()
  assert any(line.startswith('  dare') and ' (+0.' in line for line in lines)
  assert 'bad failed: seeds 1, 2: no | luck' in lines
  page = table.markdown(summarized, True)
  assert '| dare | 2 | 0.7515 ± 0.0007 | +0.' in page
  assert 'comparison.png' in page
  assert 'Made with 2 seeds by\n\n    the command\n' in page
  assert 'on 1 x cpu, python 3.' in page
  heads = [line for line in page.splitlines() if line.startswith('| model')]
  for head in heads:
    rule = page.splitlines()[page.splitlines().index(head) + 1]
    assert rule.count('|') == head.count('|')
  assert 'NDCG' not in page  # Nobody has it here.
  assert 'comparison.png' not in table.markdown(summarized, False)


def test_figure(summarized, tmp_path, monkeypatch):
  path = tmp_path / 'comparison.png'
  assert figure.draw(summarized, path)
  assert path.read_bytes().startswith(b'\x89PNG')
  assert not figure.draw({'rows': [], 'base': 'x'}, tmp_path / 'none.png')
  monkeypatch.setattr(plots, 'can_draw', lambda: False)
  assert not figure.draw(summarized, tmp_path / 'none.png')
  assert not (tmp_path / 'none.png').exists()


def test_own_flags_do_not_reach_the_runs():
  given = ['--config', 'x.py:dim=4', '-models', 'a,b', '--config.model.top_k=3']
  given += ['--output=a b', '--base=a', '--seeds=2']
  given += ['--config.data.input=--base=a']
  assert cli.without(given, ['models', 'output', 'base', 'seeds']) == [
    *('--config', 'x.py:dim=4', '--config.model.top_k=3'),
    '--config.data.input=--base=a',
  ]
