"""What a sweep has found: `trials.json`, a table, and a command."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import shlex
from typing import Any

from dare_jax import cli
from dare_jax.tuning import space
from dare_jax.tuning import study as study_lib
from dare_jax.tuning import sweep

_SHOWN = 10
_STATES = {
  study_lib.State.COMPLETE: 'done',
  study_lib.State.PRUNED: 'given up',
  study_lib.State.FAIL: 'failed',
  study_lib.State.RUNNING: 'begun',
}


def found(
  study: study_lib.Study, planned: sweep.Plan, command: str
) -> dict[str, Any]:
  """Returns what `trials.json` holds.

  Args:
    study: the trials, as Optuna keeps them.
    planned: the sweep that was run.
    command: the command of the sweep.
  """
  choice = study.choice
  rows = []
  for trial in study.trials:
    steps = trial.intermediate_values
    row: dict[str, Any] = {
      'number': trial.number,
      'status': _STATES[trial.state],
      'value': trial.value if trial.state == study_lib.State.COMPLETE else None,
      'fields': dict(trial.params),
      'validations': {str(step): steps[step] for step in sorted(steps)},
      'workdir': str(planned.workdir(trial.number)),
    }
    if reason := trial.user_attrs.get('reason'):
      row['reason'] = reason
    rows.append(row)
  table = {
    'metric': f'val/{choice.metric}',
    'direction': 'maximize' if choice.maximizes else 'minimize',
    'command': command,
    'space': {field.name: field.told() for field in choice.fields},
    'trials': rows,
    'own_values': study.own_values(),
    'best': None,
    'importance': study.importance(),
  }
  if done := ranked(table):
    best = done[0]
    table['best'] = {
      'number': best['number'],
      'value': best['value'],
      'fields': best['fields'],
      'command': _command(best['fields'], planned),
    }
  return table


def ranked(table: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns the trials with a value, the best first."""
  done = [row for row in table['trials'] if row['value'] is not None]
  sign = -1 if table['direction'] == 'maximize' else 1
  return sorted(done, key=lambda row: sign * row['value'])


def of_config(table: Mapping[str, Any]) -> dict[str, Any] | None:
  """Returns the trial with the config's own values, if it has a value."""
  own = table['own_values']
  for row in ranked(table):
    if row['fields'] == own:
      return row
  return None


def text(table: Mapping[str, Any]) -> str:
  """Returns the best trials, aligned, for the screen."""
  done = ranked(table)
  counts = [
    f'{count} {status}'
    for status in _STATES.values()
    if (count := sum(row['status'] == status for row in table['trials']))
  ]
  lines = ['', f'{len(table["trials"])} trials: {", ".join(counts)}']
  if not done:
    return '\n'.join(lines)
  names = list(table['space'])
  cells = [['trial', table['metric'], *map(_short_name, names)]]
  own = of_config(table)
  for row in done[:_SHOWN]:
    values = [_cell(row['fields'][name]) for name in names]
    mark = '*' if row is own else ''
    cells.append([f'{row["number"]}{mark}', f'{row["value"]:.4f}', *values])
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  lines += [
    '  '.join(['', *map(str.rjust, row, widths)]).rstrip() for row in cells
  ]
  if len(done) > _SHOWN:
    lines.append(f'  and {len(done) - _SHOWN} more, in trials.json')
  if own is not None:
    lines.append("* the config's own values")
  if table['importance']:
    shares = [f'{k} {v:.2f}' for k, v in table['importance'].items()]
    lines += ['', f'importance: {", ".join(shares)}']
  lines += ['', 'The best:', f'  {table["best"]["command"]}']
  return '\n'.join(lines)


def _command(fields: Mapping[str, Any], planned: sweep.Plan) -> str:
  chosen = [f'--config.{name}={space.text(v)}' for name, v in fields.items()]
  names = [f'config.{name}' for name in fields]
  given: Sequence[str] = cli.without(planned.arguments, names)
  # A folder of its own: the config's default one may hold another run.
  workdir = f'--workdir={planned.output}-best'
  return shlex.join(
    ['python', '-m', 'dare_jax.train', *given, *chosen, workdir]
  )


def _short_name(name: str) -> str:
  return name.rpartition('.')[2]


def _cell(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)
