"""Peak memory of a run by phase, against what its tables and slots take.

A fresh process starts the run, trains, saves and validates; another takes it
up again, trains on, and tests the best checkpoint. Each phase is measured by
itself, by the kernel's high-water mark of the process's resident memory.

    python -m dare_jax.bench memory --config=configs/synthetic.py \
        --config.data.num_items=4070000
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
import contextlib
import multiprocessing
import pathlib
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

from absl import flags
import ml_collections

from dare_jax import config_flag
from dare_jax.logs import options as log_options
from dare_jax.process import runtime
from dare_jax.store import datasets

if TYPE_CHECKING:  # At run time, after the allocator is set.
  from dare_jax.runs import session as session_lib

# What may be held: so many times tables and slots, and so many bytes besides.
_SHARE, _BESIDES = 1.3, 1.5e9


def define_flags() -> Callable[[], list[dict[str, Any]]]:
  """Defines the flags; returns the measurement."""
  config = config_flag.define()
  steps = flags.DEFINE_integer('steps', 20, 'Steps of a phase.', lower_bound=1)
  return lambda: measure(config.value, steps.value)


def measure(
  config: ml_collections.ConfigDict, steps: int
) -> list[dict[str, Any]]:
  """Returns a row for each phase of a run.

  Args:
    config: the config of the run; its length and periods are set here.
    steps: number of steps trained in each phase.
  """
  config = ml_collections.ConfigDict(config.to_dict())
  config.train.steps = 3 * steps
  config.train.log_every_steps = steps
  config.lock()
  rows: list[dict[str, Any]] = []
  with tempfile.TemporaryDirectory() as folder:
    # Each part has a process of its own: memory that one has freed may stay
    # mapped, and would hide what the next one takes.
    for part in (_prepare, _start, _go_on):
      with futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context('spawn')
      ) as pool:
        rows += pool.submit(part, config, pathlib.Path(folder), steps).result()
  return rows


def _prepare(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, steps: int
) -> list[dict[str, Any]]:
  del workdir, steps
  datasets.open_or_prepare(log_options.of_section(config.data))
  return []


def _start(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, steps: int
) -> list[dict[str, Any]]:
  """Initialises, trains, saves and validates."""
  meter = _Meter(config, workdir)
  session = meter.begin('init')
  with meter.phase('train'):
    session.compile()
    _train(session, steps)
  with meter.phase('save', copies=1):
    session.save()
    _train(session, steps)
    session.wait()
  with meter.phase('validate, save best', copies=1):
    session.validate(lambda: None)
    session.save()
    session.wait()
  return meter.close()


def _go_on(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, steps: int
) -> list[dict[str, Any]]:
  """Restores, trains on and tests."""
  meter = _Meter(config, workdir)
  session = meter.begin('restore')
  with meter.phase('train on'):
    session.compile()
    _train(session, steps)
  with meter.phase('finish'):
    session.finish(lambda: None)
  return meter.close()


def _train(session: session_lib.Session, steps: int) -> None:
  """Trains some steps, and waits for the last."""
  with session.batches() as batches, session.timed():
    for _ in range(steps):
      session.step(batches)
  session.state.step.block_until_ready()
  session.log()


class _Meter:
  """Measures the phases of a run in this process."""

  def __init__(
    self, config: ml_collections.ConfigDict, workdir: pathlib.Path
  ) -> None:
    runtime.configure(runtime.of_section(config.runtime))
    from dare_jax.runs import run as run_lib  # After the allocator is set.

    self.run = run_lib.Run(config, workdir)
    self._rows: list[dict[str, Any]] = []
    self._held = 0

  def begin(self, name: str) -> session_lib.Session:
    """Measures how the run gets its state, in a phase of that name."""
    with self.phase(name):
      session = self.run.restore_or_init()
      session.state.step.block_until_ready()
    self.holds(session.state)
    return session

  @contextlib.contextmanager
  def phase(self, name: str, copies: int = 0) -> Iterator[None]:
    """Measures what is inside.

    Args:
      name: what the row is called.
      copies: how many copies of tables and optimizer slots the phase may make.
    """
    before = _resident('VmRSS')
    _forget_peak()
    begin = time.perf_counter()
    yield
    self._rows.append(
      {
        'phase': name,
        'seconds': time.perf_counter() - begin,
        'before_mb': before / 1e6,
        'peak_mb': _resident('VmHWM') / 1e6,
        'copies': copies,
      }
    )

  def holds(self, state: Any) -> None:
    """Notes the bytes of a state's tables and slots."""
    import jax

    leaves = jax.tree.leaves((state.tables, state.table_slots))
    self._held = sum(leaf.nbytes for leaf in leaves)

  def close(self) -> list[dict[str, Any]]:
    """Ends the run's part; returns the rows, with what each may take."""
    self.run.close()
    for row in self._rows:
      bar = (_SHARE + row.pop('copies')) * self._held + _BESIDES
      row['tables_and_slots_mb'] = self._held / 1e6
      row['bar_mb'] = bar / 1e6
      row['peak_of_bar'] = row['peak_mb'] / row['bar_mb']
    return self._rows


def _resident(field: str) -> int:
  status = pathlib.Path('/proc/self/status').read_text()
  return int(status.split(f'{field}:')[1].split()[0]) * 1024


def _forget_peak() -> None:
  """Sets the high-water mark to what is resident now."""
  pathlib.Path('/proc/self/clear_refs').write_text('5')
