"""What a comparison runs: models with overrides, times seeds."""

from __future__ import annotations

from collections.abc import Sequence
import copy
import dataclasses
import difflib
import json
import pathlib
import re
from typing import Any

import ml_collections

from dare_jax import config_flag
from dare_jax import errors
from dare_jax import storage
from dare_jax.configs import base
from dare_jax.experiments import config_check
from dare_jax.experiments import model_section
from dare_jax.experiments import run_config
from dare_jax.experiments import tested_rows
from dare_jax.runs import workdir as workdir_lib


@dataclasses.dataclass(frozen=True)
class Variant:
  """A preset with config fields set, under a name of its own.

  Attributes:
    label: the name of the model, part of a folder's.
    preset: the preset, `config.model.name`.
    fields: (field, value) as `--models` has them: the field in full, such as
      `data.fields`, or without the section `model`.
  """

  label: str
  preset: str
  fields: tuple[tuple[str, str], ...] = ()

  @property
  def entry(self) -> str:
    """What `--models` calls it."""
    settings = [f'{name}={value}' for name, value in self.fields]
    return ':'.join([f'{self.label}={self.preset}', *settings])

  @property
  def settings(self) -> list[tuple[str, str]]:
    """Fields in full, and values as a flag of the command line has them."""
    config = base.get_config()
    known = run_config.flatten(config)
    found = []
    for name, value in self.fields:
      section, dot, _ = name.partition('.')
      if name != 'seed' and not (dot and section in config):
        name = f'model.{name}'
      if name in known and run_config.kind_of(config, name) is tuple:
        # Commas part models in --models, and values here.
        value = value.replace('+', ',')
      found.append((name, value))
    return found

  def flags(self, seed: int) -> list[str]:
    """Returns what makes a `train` command that of this model and seed."""
    settings = [('seed', str(seed)), ('model.name', self.preset)]
    settings += self.settings
    return [f'--config.{name}={value}' for name, value in settings]

  def apply(
    self, config: ml_collections.ConfigDict, seed: int
  ) -> ml_collections.ConfigDict:
    """Returns a copy of `config` that says what `flags` say.

    Raises:
      UsageError: an unknown field, or a value of the wrong kind.
    """
    changed = copy.deepcopy(config)
    changed.update(seed=seed)
    changed.model.name = self.preset
    known = [*run_config.flatten(config)]
    known.remove('model.name')
    where = f'--models: {self.label}'
    given = [name for name, _ in self.fields]
    for written, (name, value) in zip(given, self.settings, strict=True):
      if name not in known:
        short = [field.removeprefix('model.') for field in known]
        close = difflib.get_close_matches(written, {*known, *short}, n=1)
        meant = f' Did you mean {close[0]}?' if close else ''
        raise errors.UsageError(
          f'{where}: unknown field {name}.{meant} Expected SECTION.FIELD of'
          ' configs/base.py, or FIELD alone for one of the section model.'
        )
      try:
        parsed = config_flag.parse(run_config.kind_of(config, name), value)
        changed.update_from_flattened_dict({name: parsed})
      except (TypeError, ValueError):
        raise errors.UsageError(
          f'{where}: {name}={value} is not of the kind that configs/base.py has'
          ' there.'
        ) from None
    return changed

  def check(self, config: ml_collections.ConfigDict) -> None:
    """Checks what `apply` has returned, as far as it can be without data.

    Raises:
      UsageError: a config that no run can have; names the model.
    """
    try:
      config_check.check(config)
      model_section.check(config)
    except errors.UsageError as error:
      raise errors.UsageError(f'--models: {self.label}: {error}') from None

  def check_rows(self) -> None:
    """Raises UsageError for a field that decides which rows are tested."""
    for name, value in self.settings:
      if not tested_rows.decides(name):
        continue
      advice = f'set it for all models, with --config.{name}'
      if name == 'seed':
        advice = 'each model has the seeds from 1 to --seeds'
      raise errors.UsageError(
        f'--models: {self.label}: {name}={value}: {name} decides which rows are'
        ' tested, or how, so that models that differ there could not be'
        ' compared; expected fields of the model, of its training or of what it'
        f' reads, such as data.fields or data.history_length; {advice}.'
      )


@dataclasses.dataclass(frozen=True)
class PlannedRun:
  """One run of a comparison; `config` is its whole resolved config."""

  variant: Variant
  seed: int
  workdir: pathlib.Path
  config: ml_collections.ConfigDict

  @property
  def name(self) -> str:
    return f'{self.variant.label}, seed {self.seed}'

  @property
  def log(self) -> pathlib.Path:
    """What its process prints."""
    return self.workdir.with_name(f'{self.workdir.name}.log')

  def result(self) -> dict[str, Any] | None:
    """Returns what `result.json` holds; None without one, or if damaged."""
    return read_result(self.workdir)

  def has_begun(self) -> bool:
    """Whether there are checkpoints to go on from."""
    return bool(workdir_lib.saved_steps(storage.locate(self.workdir)))

  def is_finished(self) -> bool:
    """Is there the result of this very config?"""
    result = self.result()
    expected = run_config.digest(self.config)
    return result is not None and result['config_hash'] == expected


def read_result(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns what `result.json` holds; None without one, or if damaged."""
  try:
    found = json.loads((workdir / 'result.json').read_text())
  except (FileNotFoundError, ValueError):
    return None  # `train` writes a damaged result again.
  is_whole = isinstance(found, dict) and 'config_hash' in found
  return found if is_whole else None


def parse_models(entries: Sequence[str]) -> list[Variant]:
  """Returns the variants that `--models` names.

  >>> parse_models(['twin', 'narrow=dare:attention_dim=8'])[1]
  Variant(label='narrow', preset='dare', fields=(('attention_dim', '8'),))

  Args:
    entries: PRESET, or LABEL=PRESET with `:FIELD=VALUE` any number of times.

  Raises:
    UsageError: a malformed entry, or two of one name.
  """
  variants = [_parse_entry(entry.strip()) for entry in entries if entry.strip()]
  labels = [variant.label for variant in variants]
  for label in labels:
    if labels.count(label) > 1:
      raise errors.UsageError(
        f'--models names {label} twice; give one a label: other={label}.'
      )
  return variants


def _parse_entry(entry: str) -> Variant:
  head, *settings = entry.split(':')
  label, labelled, preset = head.partition('=')
  pairs = []
  for setting in settings:
    name, _, value = setting.partition('=')
    if not name or not value:
      raise errors.UsageError(
        f'--models: {entry!r}: expected FIELD=VALUE after each colon.'
      )
    pairs.append((name, value))
  if not re.fullmatch(r'\w[\w.+-]*', label) or (labelled and not preset):
    raise errors.UsageError(
      f'--models: {entry!r}: expected PRESET, or LABEL=PRESET:FIELD=VALUE.'
    )
  if pairs and not labelled:
    raise errors.UsageError(
      f'--models: {entry!r} changes fields; give it a label: LABEL={entry}.'
    )
  return Variant(label, preset if labelled else label, tuple(pairs))


def plan(
  config: ml_collections.ConfigDict,
  variants: Sequence[Variant],
  seeds: int,
  output: pathlib.Path,
) -> list[PlannedRun]:
  """Returns the runs, all models of seed 1 first, with every config checked.

  Args:
    config: the config that the models share.
    variants: the models to compare.
    seeds: number of seeds; they are 1 to this.
    output: the folder of the comparison; the runs lie in `runs/<label>-<seed>`
      of it.

  Raises:
    UsageError: a bad config, models that could not be compared, or the folder
      holds runs of another config.
  """
  runs = []
  for variant in variants:
    variant.check_rows()
  for seed in range(1, seeds + 1):
    for variant in variants:
      workdir = output / 'runs' / f'{variant.label}-{seed}'
      made = variant.apply(config, seed)
      runs.append(PlannedRun(variant, seed, workdir, made))
  for run in runs:
    if run.seed == 1:
      run.variant.check(run.config)
    try:
      workdir_lib.check_same_run(run.config, storage.locate(run.workdir))
    except errors.UsageError as error:
      text = str(error).replace('--workdir', '--output')
      raise errors.UsageError(text) from None
  return runs


def hint(wrong: str, known: Sequence[str]) -> str:
  """Returns ' Did you mean ..?', or what is known if nothing is close."""
  close = difflib.get_close_matches(wrong, known, n=1)
  if close:
    return f' Did you mean {close[0]}?'
  return f' Expected one of {", ".join(known)}.'
