"""What a sweep may choose: config fields with ranges or choices, checked."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import copy
import dataclasses
import difflib
import json
import math
import pathlib
import tomllib
from typing import Any

import ml_collections
import optuna

from dare_jax import errors
from dare_jax.experiments import config_check
from dare_jax.experiments import model_section
from dare_jax.experiments import run_config
from dare_jax.experiments import tested_rows
from dare_jax.store import vector_files

_KEYS = ('low', 'high', 'log', 'step', 'choices')
_EXPECTED = (
  'expected {low, high} with log or step beside them, or a list of choices'
)
_ENDINGS = ('.toml', '.json', '.yaml', '.yml')


@dataclasses.dataclass(frozen=True)
class Field:
  """A config field, and what it may be.

  Attributes:
    name: the name of the field, such as `optim.learning_rate`.
    choices: values of the field's type; empty: a range.
    low: smallest value of a range.
    high: largest value of a range, which may be reached.
    log: whether equal ratios are equally likely, rather than differences.
    step: distance of two values; None: 1 for whole numbers, any for others.
    whole: whether the range holds whole numbers only.
  """

  name: str
  choices: tuple[Any, ...] = ()
  low: float = 0.0
  high: float = 0.0
  log: bool = False
  step: float | None = None
  whole: bool = False

  def suggest(self, trial: optuna.Trial) -> Any:
    """Returns the value that a trial has; drawn if it has none yet."""
    if self.choices:
      # As texts: an optimiser's storage has no lists, and takes 1 for True.
      texts = [text(value) for value in self.choices]
      return self.choices[
        texts.index(trial.suggest_categorical(self.name, texts))
      ]
    if self.whole:
      return trial.suggest_int(
        self.name,
        int(self.low),
        int(self.high),
        step=int(self.step or 1),
        log=self.log,
      )
    return trial.suggest_float(
      self.name, self.low, self.high, step=self.step, log=self.log
    )

  def stored(self, value: Any) -> Any:
    """Returns a value as the optimiser has it; None where it cannot be."""
    if self.choices:
      texts = [text(choice) for choice in self.choices]
      return text(value) if text(value) in texts else None
    if value is None or not self.low <= value <= self.high:
      return None
    steps = (value - self.low) / self.step if self.step else 0.0
    return value if abs(steps - round(steps)) < 1e-9 else None

  @property
  def corners(self) -> tuple[Any, Any]:
    """The first and the last value."""
    if self.choices:
      return self.choices[0], self.choices[-1]
    return self.low, self.high

  def told(self) -> dict[str, Any]:
    """Returns the field as JSON keeps it."""
    if self.choices:
      return {'choices': [text(value) for value in self.choices]}
    found = {'low': self.low, 'high': self.high, 'log': self.log}
    return found | {'step': self.step}


def text(value: Any) -> str:
  """Returns a value as a flag of the command line has it.

  >>> text((200, 80)), text(None), text(0.01)
  ('200,80', 'None', '0.01')
  """
  if isinstance(value, list | tuple):
    plain = all(isinstance(part, int | float | str) for part in value)
    if len(value) > 1 and plain:
      return ','.join(map(str, value))
    return repr(tuple(value))
  return str(value)


def apply(
  config: ml_collections.ConfigDict, values: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  """Returns a copy of a config with other values of some fields.

  Args:
    config: the config of the sweep.
    values: name of a field, such as 'optim.learning_rate' -> its value.
  """
  changed = copy.deepcopy(config)
  for name, value in values.items():
    changed.update_from_flattened_dict({name: value})
  return changed


def check(config: ml_collections.ConfigDict) -> None:
  """Raises UsageError for a config that no run can have."""
  config_check.check(config)
  model_section.check(config)
  if config.data.item_vectors is not None:
    vector_files.require(config.data.item_vectors)


def read(
  path: pathlib.Path, config: ml_collections.ConfigDict
) -> tuple[Field, ...]:
  """Returns the fields of a file, in its order.

  Args:
    path: TOML, JSON or YAML, by its name: field -> {low, high, log, step}, or
      a list of choices. Fields may be nested by section.
    config: what the sweep starts from.

  Raises:
    UsageError: names the field, and what is expected there.
  """
  known = run_config.flatten(config)
  found = []
  content = _parse(path)
  if content is None:  # An empty file of YAML, or the null of JSON.
    content = {}
  if not isinstance(content, dict):
    raise errors.UsageError(
      f'--space={path}: holds {content!r:.60}; expected names of config fields,'
      f' and for each what it may be: {_EXPECTED}.'
    )
  for name, given in _leaves(content):
    where = f'--space={path}: {name}'
    if name not in known:
      close = difflib.get_close_matches(name, known, n=1)
      advice = f'did you mean {close[0]}?' if close else 'see configs/base.py.'
      raise errors.UsageError(f'{where}: unknown config field; {advice}')
    if tested_rows.decides(name):
      raise errors.UsageError(
        f'{where}: cannot be chosen by a sweep: it decides what validation'
        ' measures, so trials could not be compared; set it once for all, with'
        f' --config.{name}.'
      )
    found.append(_field(name, given, config, where))
  if not found:
    raise errors.UsageError(f'--space={path}: names no field; {_EXPECTED}.')
  _check_values(tuple(found), config, path)
  return tuple(found)


def _parse(path: pathlib.Path) -> Any:
  if path.suffix not in _ENDINGS:
    raise errors.UsageError(
      f'--space={path}: expected a file whose name ends in'
      f' {", ".join(_ENDINGS)}.'
    )
  try:
    content = path.read_text()
    if path.suffix == '.toml':
      return tomllib.loads(content)
    if path.suffix == '.json':
      return json.loads(content)
    import yaml

    return yaml.safe_load(content)
  except OSError as error:
    raise errors.UsageError(
      f'--space={path}: cannot be read ({error.strerror}).'
    ) from None
  except ImportError:
    raise errors.UsageError(
      f'--space={path}: YAML needs PyYAML: {errors.install("tune")}; TOML and'
      ' JSON need nothing.'
    ) from None
  except Exception as error:  # Whatever a parser of YAML raises.
    raise errors.UsageError(
      f'--space={path}: not {path.suffix[1:].upper()}: {error}'
    ) from None


def _leaves(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
  """Yields what is given for each field; sections may be nested or dotted."""
  if not isinstance(node, dict) or (path and set(node) & set(_KEYS)):
    yield path, node
    return
  for key, value in node.items():
    yield from _leaves(value, f'{path}.{key}' if path else str(key))


def _field(
  name: str, given: Any, config: ml_collections.ConfigDict, where: str
) -> Field:
  if isinstance(given, dict):
    if unknown := [key for key in given if key not in _KEYS]:
      raise errors.UsageError(
        f'{where}: {unknown[0]!r} is unknown there; {_EXPECTED}.'
      )
    if set(given) == {'choices'}:
      given = given['choices']
  if isinstance(given, list):
    values = tuple(_typed(name, value, config, where) for value in given)
    if len({text(value) for value in values}) != len(values) or not values:
      raise errors.UsageError(
        f'{where}: expected one choice or more, each of them once.'
      )
    return Field(name, choices=values)
  if not isinstance(given, dict) or not {'low', 'high'} <= set(given):
    raise errors.UsageError(f'{where}={given!r}: {_EXPECTED}.')
  if 'choices' in given:
    raise errors.UsageError(f'{where}: has a range and choices; {_EXPECTED}.')
  return _range(name, given, config, where)


def _range(
  name: str,
  given: Mapping[str, Any],
  config: ml_collections.ConfigDict,
  where: str,
) -> Field:
  kind = run_config.kind_of(config, name)
  if kind not in (int, float):
    raise errors.UsageError(
      f'{where}: a range is for numbers, and the field holds'
      f' {kind.__name__}; expected a list of choices.'
    )
  whole = kind is int
  low, high = (
    _number(given[key], whole, where, key) for key in ('low', 'high')
  )
  log, step = given.get('log', False), given.get('step')
  if not isinstance(log, bool):
    raise errors.UsageError(f'{where}: log={log!r}: expected true or false.')
  if step is not None:
    step = _number(step, whole, where, 'step')
    if step <= 0 or log:
      raise errors.UsageError(
        f'{where}: step={step}: expected a number above 0, and no log beside'
        ' it.'
      )
    num_steps = math.floor((high - low) / step + 1e-9)
    if low < high and not num_steps:
      raise errors.UsageError(
        f'{where}: step={step} leads from low={low} beyond high={high};'
        f' expected a step of {high - low} or less.'
      )
    # The last value that is a whole number of steps away.
    high = low + num_steps * step
  if not low < high or (log and low <= 0):
    least = 'above 0 and ' if log else ''
    raise errors.UsageError(
      f'{where}: low={low}, high={high}: expected a low {least}below high.'
    )
  return Field(name, (), low, high, log, step, whole)


def _number(value: Any, whole: bool, where: str, key: str) -> float:
  expected = 'a whole number' if whole else 'a number'
  if isinstance(value, str):  # YAML takes 1e-3 for a text.
    try:
      value = float(value)
    except ValueError:
      pass
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise errors.UsageError(f'{where}: {key}={value!r}: expected {expected}.')
  if not abs(value) < math.inf or (whole and value != int(value)):
    raise errors.UsageError(f'{where}: {key}={value!r}: expected {expected}.')
  return int(value) if whole else float(value)


def _typed(
  name: str, value: Any, config: ml_collections.ConfigDict, where: str
) -> Any:
  """Returns a choice, as the field has it."""
  kind = run_config.kind_of(config, name)
  if kind in (int, float) and isinstance(value, str) and value != 'None':
    value = _number(value, kind is int, where, 'choices')
  if isinstance(value, list):
    value = tuple(value)
  if value == 'None':  # TOML has no other way to say so.
    value = None
  mixed = isinstance(value, bool) != (kind is bool)
  try:
    if mixed and value is not None and kind is not object:
      raise TypeError
    changed = apply(config, {name: value})
  except (TypeError, ValueError):
    raise errors.UsageError(
      f'{where}: the choice {value!r} is of the wrong kind; expected'
      f' {kind.__name__}.'
    ) from None
  for part in name.split('.'):
    changed = changed[part]
  return changed


def _check_values(
  fields: tuple[Field, ...],
  config: ml_collections.ConfigDict,
  path: pathlib.Path,
) -> None:
  """Raises UsageError for an end or a choice that no trial could have.

  Others may allow what the config's own value of another field does not: a
  value is tried beside the config's, beside all first and beside all last.
  """
  beside: list[dict[str, Any]] = [{}]
  beside += [{field.name: field.corners[i] for field in fields} for i in (0, 1)]
  for field in fields:
    for value in field.choices or field.corners:
      reasons = []
      for others in beside:
        try:
          check(apply(config, {**others, field.name: value}))
          break
        except errors.UsageError as error:
          reasons.append(error)
      else:
        raise errors.UsageError(
          f'--space={path}: {field.name}={text(value)}: {reasons[0]}'
        )
