"""The trials of a sweep, as Optuna keeps them in a file, for the next start."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any
import warnings

import ml_collections
import optuna
import sqlalchemy

from dare_jax import errors
from dare_jax import models
from dare_jax import storage
from dare_jax.configs import base
from dare_jax.experiments import run_config
from dare_jax.tuning import space

State = optuna.trial.TrialState
# Prefixes of the fields that may differ where a sweep resumes.
_FREE_FIELDS = ('data.data_dir', 'train.log_every_steps', 'checkpoint.')
_NAME = 'tune'
SAMPLERS: Mapping[str, Callable[[int], optuna.samplers.BaseSampler]] = {
  'tpe': lambda seed: optuna.samplers.TPESampler(seed=seed),
  'random': lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
PRUNERS: Mapping[str, Callable[[], optuna.pruners.BasePruner]] = {
  'median': optuna.pruners.MedianPruner,
  'halving': optuna.pruners.SuccessiveHalvingPruner,
  'none': optuna.pruners.NopPruner,
}


@dataclasses.dataclass(frozen=True)
class Choice:
  """How a sweep chooses.

  Attributes:
    fields: the fields whose values are chosen.
    metric: a metric of validation, such as 'auc'.
    sampler: a key of `SAMPLERS`.
    pruner: a key of `PRUNERS`.
  """

  fields: tuple[space.Field, ...]
  metric: str
  sampler: str
  pruner: str

  @property
  def maximizes(self) -> bool:
    return self.metric != 'logloss'


def _value(config: ml_collections.ConfigDict, name: str) -> Any:
  """Returns the value of a field, of its model's preset where it is None."""
  value: Any = config
  for part in name.split('.'):
    value = value[part]
  section, _, option = name.partition('.')
  if value is not None or section != 'model':
    return value
  default = getattr(models.RankerConfig, option, None)
  return models.PRESETS.get(config.model.name, {}).get(option, default)


class Study:
  """Trials, numbered from 0 in the order in which they were drawn."""

  def __init__(
    self,
    output: pathlib.Path,
    config: ml_collections.ConfigDict,
    choice: Choice,
  ) -> None:
    """Opens the file in a folder, or makes it.

    The first trial is the config as it is, where the space has its values.

    Args:
      output: the folder of the sweep.
      config: the config of all trials, apart from the fields that are chosen.
      choice: how values are chosen.

    Raises:
      UsageError: the file holds another sweep, or is not readable.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    self.choice = choice
    self._config = config
    self.path = output / 'study.db'
    address = sqlalchemy.URL.create('sqlite', database=str(self.path))
    with storage.told(storage.locate(self.path)):
      try:
        self._study = optuna.create_study(
          storage=optuna.storages.RDBStorage(
            address.render_as_string(hide_password=False)
          ),
          study_name=_NAME,
          direction='maximize' if choice.maximizes else 'minimize',
          pruner=PRUNERS[choice.pruner](),
          load_if_exists=True,
        )
      except (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
        RuntimeError,
        AssertionError,
      ) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise errors.UsageError(
          f'{self.path}: not readable as the trials of a sweep ({text[0]});'
          ' restore it, or choose another --output.'
        ) from None
    self._settle()

  def _settle(self) -> None:
    """Writes down which sweep this is, or checks that it is the same."""
    now = {
      'config': run_config.flatten(self._config),
      'space': {field.name: field.told() for field in self.choice.fields},
      'metric': self.choice.metric,
    }
    if (kept := self._study.user_attrs.get('sweep')) is not None:
      _check_same(json.loads(kept), now, self.path)
      return
    # After a kill in between, this runs again; trials planned before are kept.
    own = self.own_values()
    if own and not self._study.get_trials(deepcopy=False):
      self._study.enqueue_trial(own)
    self._study.set_user_attr('sweep', json.dumps(now))

  def own_values(self) -> dict[str, Any]:
    """Returns the config's own values, of the fields whose space has them."""
    own = {
      field.name: field.stored(_value(self._config, field.name))
      for field in self.choice.fields
    }
    return {name: value for name, value in own.items() if value is not None}

  @property
  def trials(self) -> list[optuna.trial.FrozenTrial]:
    """All that were drawn, but for those that are only planned."""
    states = [state for state in State if state != State.WAITING]
    return self._study.get_trials(deepcopy=False, states=states)

  def count_ended(self) -> int:
    """Returns how many trials are over, however they ended."""
    return sum(trial.state.is_finished() for trial in self.trials)

  def begun(self) -> list[optuna.Trial]:
    """Returns the trials that a killed sweep has left behind."""
    return [
      optuna.Trial(self._study, trial._trial_id)
      for trial in self.trials
      if trial.state == State.RUNNING
    ]

  def draw(self) -> optuna.Trial:
    """Returns a new trial, of which no value is drawn yet."""
    return self._study.ask()

  def values(self, trial: optuna.Trial) -> dict[str, Any]:
    """Returns field -> value of a trial; those it has not are drawn.

    The draw depends on the seed, on the trial's number and on what is known of
    other trials: a sweep that was killed goes on as it would have.
    """
    seed = self._config.seed * 1_000_003 + trial.number
    self._study.sampler = SAMPLERS[self.choice.sampler](seed)
    return {field.name: field.suggest(trial) for field in self.choice.fields}

  def report(self, trial: optuna.Trial, found: Mapping[int, float]) -> bool:
    """Takes validations, step -> value; returns whether to give it up."""
    trials = self._study.get_trials(deepcopy=False)
    known = trials[trial.number].intermediate_values
    for step, value in found.items():
      if step not in known:
        trial.report(value, step)
    return trial.should_prune()

  def end(
    self,
    trial: optuna.Trial,
    state: optuna.trial.TrialState,
    value: float | None = None,
    reason: str | None = None,
  ) -> None:
    """Writes down how a trial ended, once and for all."""
    if reason is not None:
      trial.set_user_attr('reason', reason)
    self._study.tell(trial, value, state)

  def importance(self) -> dict[str, float]:
    """Returns field -> its share of the variance; empty if there is none.

    By a random forest over the trials that were not given up (fANOVA, Hutter et
    al., 2014). Fields that were never varied are left out.
    """
    done = [trial for trial in self.trials if trial.state == State.COMPLETE]
    if len({trial.value for trial in done}) < 2:
      return {}
    varied = [
      field.name
      for field in self.choice.fields
      if len({trial.params[field.name] for trial in done}) > 1
    ]
    with warnings.catch_warnings():
      # Optuna warns of too few trials; the table says so itself.
      warnings.simplefilter('ignore')
      return optuna.importance.get_param_importances(
        self._study,
        evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
        params=varied,
      )


def _check_same(
  kept: Mapping[str, Any], now: Mapping[str, Any], path: pathlib.Path
) -> None:
  advice = (
    'its trials could not be compared with those to come; choose another'
    ' --output, or the same sweep. --trials, --parallel, --sampler and --pruner'
    ' may differ.'
  )
  before = run_config.flatten(base.get_config()) | kept['config']
  for field, value in now['config'].items():
    if not field.startswith(_FREE_FIELDS) and before.get(field) != value:
      raise errors.UsageError(
        f'{field}={value}, but the sweep in {path.parent} has'
        f' {field}={before.get(field)}: {advice}'
      )
  for field in sorted({*kept['space'], *now['space']}):
    was, given = kept['space'].get(field), now['space'].get(field)
    if was != given:
      raise errors.UsageError(
        f'--space: {field} is {_told(given)}, but in the sweep in'
        f' {path.parent} it is {_told(was)}: {advice}'
      )
  if kept['metric'] != now['metric']:
    raise errors.UsageError(
      f'--metric={now["metric"]}, but the sweep in {path.parent} has'
      f' {kept["metric"]}: {advice}'
    )


def _told(field: Mapping[str, Any] | None) -> str:
  return 'not chosen' if field is None else json.dumps(field)
