"""The summary printed at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
import os
import shlex
from typing import Any

import ml_collections

from dare_jax import errors

_SHOWN = (
  ('auc', 'AUC'),
  ('gauc', 'GAUC, by user'),
  ('category_gauc', 'GAUC, by target category'),
  ('auc_item_seen', 'AUC, positive item in the history'),
  ('auc_item_unseen', 'AUC, positive item not in the history'),
  ('logloss', 'logloss'),
  ('calibration', 'calibration'),
)


def summary(
  result: Mapping[str, Any],
  workdir: str,
  config: str,
  overrides: Mapping[str, Any],
) -> str:
  """Returns a small table of the result and what to try next.

  Args:
    result: what `result.json` holds.
    workdir: the run's folder.
    config: the config file, as `--config` has it.
    overrides: field -> value, those that were given beside it.
  """

  def command(**changes: Any) -> str:
    """Returns the command of this run with other fields of its model."""
    changed = {f'model.{name}': value for name, value in changes.items()}
    kept = {k: v for k, v in overrides.items() if k not in changed}
    if 'name' in changes:  # DARE has no shared table to observe: refused.
      kept.pop('train.observe_gradients', None)
    given = {'': config} | {f'.{k}': v for k, v in (kept | changed).items()}
    return ' '.join(
      ('python -m dare_jax.train',)
      + tuple(f'--config{k}={shlex.quote(str(v))}' for k, v in given.items())
    )

  other = 'twin' if result['model'] == 'dare' else 'dare'
  lines = [
    '',
    f'{result["model"]} on {result["dataset"]}, seed {result["seed"]}:'
    f' step {result["best_step"]} of {result["steps"]} {_why(result)}',
    f'{"":38}{"val":>9}{"test":>9}',
  ]
  for name, label in _SHOWN:
    if name in result['test']:
      cells = [result[split].get(name) for split in ('val', 'test')]
      row = ''.join(f'{"" if v is None else f"{v:.4f}":>9}' for v in cells)
      lines.append(f'{label:38}{row}')
  if missing := result.get('left_out'):  # Results of older versions say none.
    lines.append(f'left out of the test: {left_out(missing)}')
  counts = result['parameters']
  lines += [
    f'{result["train_time_s"]:.0f} s of training,'
    f' {result["examples_per_s"]:,.0f} targets/s;'
    f' parameters: {counts["attention_tables"]:,} in attention tables,'
    f' {counts["representation_tables"]:,} in representation tables,'
    f' {counts["other"]:,} others',
    f'everything is in {workdir}',
    '',
    'Try next:',
    f'  compare with {other:10}{command(name=other)}',
  ]
  if result['model'] == 'dare':
    lines.append(
      f'  a narrower search      {command(attention_dim=8)}'
      f' --workdir={shlex.quote(f"{workdir}-narrow")}'
    )
  if result['dataset'] != 'csv_log':
    lines.append('  your own log           configs/csv_log.py says how')
  return '\n'.join(lines)


def _why(result: Mapping[str, Any]) -> str:
  """What makes the step the one that is tested."""
  best_by = result.get('best_by', 'auc')  # As older versions did.
  if best_by is None:
    return 'is the last; none was best, as no validation had a logloss or AUC'
  return 'was best' if best_by == 'auc' else f'was best, by {best_by}'


def left_out(reasons: Mapping[str, str]) -> str:
  """Returns metrics that are left out, by reason, on one line.

  >>> left_out({'auc': 'all 3 labels are 1', 'gauc': 'all 3 labels are 1'})
  'auc, gauc (all 3 labels are 1)'

  Args:
    reasons: metric -> why it is not defined.
  """
  names: dict[str, list[str]] = {}
  for name, reason in reasons.items():
    names.setdefault(reason, []).append(name)
  parts = (f'{", ".join(own)} ({reason})' for reason, own in names.items())
  return '; '.join(parts)


def left_out_lines(
  split: str, reasons: Mapping[str, str], best_by: str | None
) -> list[str]:
  """Returns what an evaluation's log says of metrics that are left out.

  Args:
    split: the split that was evaluated.
    reasons: metric -> why it is not defined.
    best_by: the metric that decides which validation is best.
  """
  lines = [f'{split}: left out: {left_out(reasons)}'] if reasons else []
  if split == 'val' and best_by in reasons:
    lines.append(f'val: this step cannot be the best: {best_by} decides that')
  return lines


def diverged(
  window: str,
  config: ml_collections.ConfigDict,
  workdir: os.PathLike[str],
  good: int | None,
) -> errors.UsageError:
  """Returns the error of a run whose loss or parameters are not finite.

  Args:
    window: the steps in which that came about, in words.
    config: the config of the run.
    workdir: the folder of the run.
    good: the step of the newest checkpoint, which is finite; None: there is
      none.
  """
  again = 'Nothing was saved before it: start again in this workdir'
  if good is not None:
    again = (
      f'The checkpoint of step {good} in {workdir} is sound: go on from what it'
      f' has learned with --config.train.init_from={workdir} and another'
      ' --workdir, or start again in another one'
    )
  return errors.UsageError(
    'the loss, or a parameter, is not finite somewhere in steps'
    f' {window}. {again}, with a learning rate below'
    f' optim.learning_rate={config.optim.learning_rate:g}.'
  )
