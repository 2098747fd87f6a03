"""A bundle that was opened: raw values to ids, histories to scores."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import copy
import os
import pathlib
from typing import Any

import numpy as np

from dare_jax import errors
from dare_jax.bundle import arrays
from dare_jax.bundle import calls as calls_lib
from dare_jax.bundle import id_check
from dare_jax.bundle import manifest as manifest_lib
from dare_jax.bundle import program_shapes
from dare_jax.bundle import raw_ids
from dare_jax.bundle import requests as requests_lib
from dare_jax.bundle import scoring
from dare_jax.bundle import times as times_lib
from dare_jax.logs.values import set_values

# The id that a model reads in place of values that training has not seen.
_UNKNOWN_ROW = 1
Ids = requests_lib.Ids
Shape = program_shapes.Shape


class Bundle:
  """A model that scores, without its training's libraries.

  Attributes:
    path: the folder of the bundle.
    manifest: what `manifest.json` holds.
  """

  def __init__(self, path: pathlib.Path, manifest: dict[str, Any]) -> None:
    """Opens files; nothing is compiled. See `open`."""
    self.path = path
    self.manifest = manifest
    self._raw_ids = {
      field: raw_ids.RawIds(path / 'ids', field, told)
      for field, told in manifest['ids'].items()
    }
    self._users = None
    self._of_users: dict[str, np.ndarray] = {}
    if (users := manifest.get('users')) is not None:
      self._users = raw_ids.RawIds(path / 'ids', 'user', users['ids'])
      self._of_users = {
        field: arrays.load(path / told['file'], told)
        for field, told in users['fields'].items()
      }
    self._check = id_check.IdCheck(
      self.fields, self.context_fields, self._times, manifest['vocab_sizes']
    )
    self._calls = calls_lib.Calls(
      path, manifest, arrays.on_device(path, manifest)
    )
    self._take(Shape(*sizes) for sizes in manifest['shapes'])

  def _take(self, shapes: Iterable[Shape]) -> None:
    options = scoring.Options(
      self.top_k,
      self.has_cached_keys,
      self.manifest['keeps_all'],
      self.manifest['scores_alone'],
      # Bundles of earlier versions say the second, or neither.
      tuple(
        self.manifest.get('slot_fields', self.manifest.get('match_fields', ()))
      ),
      'gap' in self.real_time,
    )
    self._shapes = program_shapes.ProgramShapes(
      shapes, self.manifest['capacity']
    )
    calls = self._calls
    if not self._shapes.shapes:
      calls = calls.for_any_shape()
    self._scorer = scoring.Scorer(options, self._shapes, calls)

  def of_shapes(self, shapes: Iterable[Shape]) -> Bundle:
    """Returns the same bundle that pads users to some of its shapes alone.

    Args:
      shapes: some of `shapes`; empty: the programs for any shape do everything.
    """
    other = copy.copy(self)
    other._take(shapes)
    return other

  @property
  def name(self) -> str:
    """The model's name."""
    return str(self.manifest['model'])

  @property
  def version(self) -> str:
    """The version, which differs between bundles of different content."""
    return str(self.manifest['version'])

  @property
  def fields(self) -> tuple[str, ...]:
    """Fields of a behavior and of a candidate."""
    return tuple(self.manifest['fields'])

  @property
  def context_fields(self) -> tuple[str, ...]:
    """Fields of a moment, for the head alone."""
    return tuple(self.manifest['context_fields'])

  @property
  def real_time(self) -> tuple[str, ...]:
    """The parts of real time that the model reads.

    With any, histories and behaviors have `time` beside their fields, and so
    have contexts: int32, seconds after a Monday at 00:00 UTC, the same for all
    of a user, such as `times` makes of those of the log.
    """
    return tuple(self.manifest.get('real_time', ()))  # Older ones have none.

  @property
  def times(self) -> times_lib.Times | None:
    """The times of the log, None where the model reads none."""
    return times_lib.of_bundle(self.path, self.manifest)

  @property
  def _times(self) -> tuple[str, ...]:
    return (requests_lib.TIME,) if self.real_time else ()

  @property
  def user_fields(self) -> tuple[str, ...]:
    """Those of the context fields that are known of the log's users."""
    return tuple(self._of_users)

  def of_users(self, field: str, users: Any) -> np.ndarray:
    """Returns the ids that users have of a field, int32 [n].

    Args:
      field: one of `user_fields`.
      users: raw users; those that the log lacks have the unknown value.
    """
    assert self._users is not None
    row = self._users(users, -1)
    return np.where(row < 0, _UNKNOWN_ROW, self._of_users[field][row])

  @property
  def sets(self) -> dict[str, str]:
    """Fields whose values are sets, and what separates members in text."""
    return dict(self.manifest.get('sets', {}))

  @property
  def history_length(self) -> int:
    """Behaviors that count; what lies farther back is never seen."""
    return int(self.manifest['history_length'])

  @property
  def top_k(self) -> int:
    return int(self.manifest['top_k'])

  @property
  def unknown_id(self) -> int | None:
    """The id that was trained for what is not known, if one was."""
    return self.manifest['unknown_id']

  @property
  def has_cached_keys(self) -> bool:
    """Whether states hold search keys; else they hold the history alone."""
    return bool(self.manifest['has_cached_keys'])

  @property
  def shapes(self) -> tuple[Shape, ...]:
    """What is compiled ahead: users, candidates of each, slots."""
    return self._shapes.shapes

  def ids(self, field: str, raw: Any) -> np.ndarray:
    """Returns the ids of raw values, int32 [n], as `trained.Trained.ids` does.

    Args:
      field: one of `fields` or `context_fields`.
      raw: a list, an array of NumPy, or a series of pandas or Polars. 5, 5.0
        and '5' are the same value; of a field of sets, each is a list of
        members or text, in any order.

    Raises:
      UsageError: no such field, or a value that no log could have.
    """
    if field not in self._raw_ids:
      known = ', '.join(sorted(self._raw_ids))
      raise errors.UsageError(f'field {field!r}: expected one of {known}.')
    # Older bundles have none of either.
    numbers = self.manifest.get('numbers', ())
    raw = set_values.named(field, raw, numbers, self.sets)
    return self._raw_ids[field](raw, _UNKNOWN_ROW)

  def known_values(self, field: str, count: int) -> list[Any]:
    """Returns some raw values of a field, as the log has them."""
    return self._raw_ids[field].some(count)

  def unknown(self, field: str, ids: np.ndarray) -> np.ndarray:
    """Returns bool [n], whether ids stand for values that are not known."""
    del field  # It is the same id in all of them.
    return np.asarray(ids) == _UNKNOWN_ROW

  def encode(self, history: Ids) -> requests_lib.State:
    """Returns a user's state.

    Args:
      history: field -> int32 [l], the ids of the behaviors, oldest first, of
        any number; the last `history_length` behaviors count.

    Raises:
      UsageError: fields, lengths or ids that do not fit.
    """
    return self._scorer.encode(self.version, self._history(history))

  def append(
    self, state: requests_lib.State, behavior: Mapping[str, int]
  ) -> requests_lib.State:
    """Returns the state with one more behavior; `state` stays as it is.

    Raises:
      UsageError: fields or ids that do not fit, or another bundle's state.
    """
    self._check_version(state)
    one = {field: np.reshape(value, 1) for field, value in behavior.items()}
    checked = self._check.behaviors('behavior', one)
    values = {field: int(ids[0]) for field, ids in checked.items()}
    return self._scorer.append(state, values, self.history_length)

  def expand(self, state: requests_lib.State) -> requests_lib.State:
    """Returns a compact state with its keys, encoded again."""
    self._check_version(state)
    return self._scorer.expand(state)

  def score(
    self,
    histories: Sequence[Ids | requests_lib.State],
    candidates: Sequence[Ids],
    contexts: Sequence[Mapping[str, int]] | None = None,
    explain: bool = False,
  ) -> list[requests_lib.Scores]:
    """Returns the scores of each user's candidates.

    Users are scored together where shapes allow it. Of a model that keeps all
    behaviors, an explanation has the `top_k` that weigh most.

    Args:
      histories: for each user field -> int32 [l], ids of the behaviors, oldest
        first; or a state.
      candidates: for each user field -> int32 [c], ids of the candidates.
      contexts: for each user field -> id; None where the model has no such
        fields.
      explain: whether the behaviors found and their weights are returned, too.

    Raises:
      UsageError: what does not fit the bundle, or each other.
    """
    if contexts is None:
      contexts = [{}] * len(histories)
    if not len(histories) == len(candidates) == len(contexts):
      raise errors.UsageError(
        f'{len(histories)} histories, {len(candidates)} lists of candidates and'
        f' {len(contexts)} contexts: expected one of each for every user.'
      )
    scored = [self._check.candidates(some) for some in candidates]
    moments = [self._check.context(context) for context in contexts]
    states = self._states(histories)
    result = [self._nothing(explain)] * len(states)
    places = [i for i, some in enumerate(scored) if len(some['item'])]
    requests = [
      requests_lib.Request(states[i], scored[i], moments[i]) for i in places
    ]
    found = self._scorer.score(requests, explain)
    for place, scores in zip(places, found, strict=True):
      result[place] = scores
    return result

  def warm_up(self, shapes: Iterable[Shape] | None = None) -> None:
    """Compiles programs, so that no request waits for them.

    Args:
      shapes: numbers of users, of candidates of each, and of slots; None: all
        of `shapes`, and the programs that append to states.
    """
    for shape in self._shapes.shapes if shapes is None else shapes:
      length = min(shape.capacity, self.history_length)
      own = (*self.fields, *self._times)
      past = {f: np.ones(length, np.int32) for f in own}
      some = {f: np.ones(shape.candidates, np.int32) for f in self.fields}
      context = dict.fromkeys((*self.context_fields, *self._times), 1)
      n = shape.batch
      self.score([past] * n, [some] * n, [context] * n)
      # With a slot left: a full state moves to the next larger capacity.
      state = self.encode({field: ids[1:] for field, ids in past.items()})
      self.append(state, dict.fromkeys(own, 1))

  def check_programs(self) -> None:
    """Checks that this JAX can read what it is to run.

    Raises:
      UsageError: it cannot, or runs on another platform.
    """
    for file in self._calls.files:
      self._calls.load(file)

  def _states(
    self, histories: Sequence[Ids | requests_lib.State]
  ) -> list[requests_lib.State]:
    """Returns states; those given as ids are encoded together."""
    raw = [h for h in histories if not isinstance(h, requests_lib.State)]
    checked = [self._history(history) for history in raw]
    made = iter(self._scorer.encode_together(self.version, checked))
    result = []
    for history in histories:
      if isinstance(history, requests_lib.State):
        result.append(self.expand(history))
      else:
        result.append(next(made))
    return result

  def _nothing(self, explain: bool) -> requests_lib.Scores:
    logit, shape = np.zeros(0, np.float32), (0, self.top_k)
    if not explain:
      return requests_lib.Scores(logit)
    return requests_lib.Scores(
      logit,
      np.zeros(shape, np.int32),
      np.zeros(shape, np.float32),
      np.zeros(shape, bool),
    )

  def _history(self, history: Ids) -> dict[str, np.ndarray]:
    ids = self._check.behaviors('history', history)
    return {field: own[-self.history_length :] for field, own in ids.items()}

  def _check_version(self, state: requests_lib.State) -> None:
    if state.version != self.version:
      raise errors.UsageError(
        f'a state of bundle version {state.version}: expected {self.version};'
        ' encode the history again.'
      )


def open(path: str | os.PathLike[str]) -> Bundle:
  """Returns the bundle in a folder.

  Raises:
    UsageError: no bundle, one of another format version, a missing or damaged
      file, or programs that this jaxlib cannot read; says how to export again.
  """
  folder = pathlib.Path(os.path.abspath(os.path.expanduser(path)))
  manifest = manifest_lib.read(folder)
  opened = Bundle(folder, manifest)
  opened.check_programs()
  return opened
