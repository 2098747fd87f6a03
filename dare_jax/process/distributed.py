"""Several processes, one training: how they find each other.

JAX's own runtime connects them. On a TPU VM, under SLURM, Open MPI and in a
Kubernetes job it finds its peers by itself: give `--distributed` to every
process. Elsewhere say where they are:

    --coordinator=HOST:PORT --num_processes=N --process_id=I
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from absl import flags

from dare_jax import errors

_NAMES = ('coordinator', 'num_processes', 'process_id')


def define_flags() -> None:
  """Defines the flags; a single process needs none of them."""
  flags.DEFINE_bool(
    'distributed',
    False,
    'Train with all processes of this TPU pod slice, SLURM, Open MPI or'
    ' Kubernetes job.',
  )
  flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0, where nothing tells it.'
  )
  flags.DEFINE_integer(
    'num_processes', None, 'Number of processes.', lower_bound=1
  )
  flags.DEFINE_integer(
    'process_id', None, 'Number of this process, from 0.', lower_bound=0
  )


def start() -> None:
  """Connects this process with its peers, if the flags say that it has any.

  Call it before JAX is used. If peers do not come within five minutes, JAX's
  runtime ends the process, with a trace of its own.

  Raises:
    UsageError: contradictory flags, or nothing says where the peers are.
  """
  given: dict[str, Any] = {name: flags.FLAGS[name].value for name in _NAMES}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(_NAMES):
    if flags.FLAGS.distributed:
      _connect()
    return
  if missing:
    raise errors.UsageError(
      f'--{missing[0]} is missing: --coordinator, --num_processes and'
      ' --process_id go together.'
    )
  if given['process_id'] >= given['num_processes']:
    raise errors.UsageError(
      f'--process_id={given["process_id"]}: expected 0 to'
      f' {given["num_processes"] - 1}, as --num_processes says.'
    )
  if given['num_processes'] > 1:
    _connect(
      coordinator_address=given['coordinator'],
      num_processes=given['num_processes'],
      process_id=given['process_id'],
    )


def _connect(**where: Any) -> None:
  import jax  # After the allocator is set.

  ours = signal.getsignal(signal.SIGTERM)
  try:
    jax.distributed.initialize(**where)
    # JAX's preemption service has taken SIGTERM. `runs.interrupt` handles
    # it, sooner, and asks the service for notices that come another way.
    signal.signal(signal.SIGTERM, ours)
    _end_at_an_error()
  except (RuntimeError, ValueError) as error:
    if not where and isinstance(error, ValueError):
      raise errors.UsageError(
        '--distributed: this is no TPU pod slice, and no SLURM, Open MPI or'
        ' Kubernetes job that JAX knows; give --coordinator=HOST:PORT,'
        ' --num_processes=N and --process_id=I to each process in its place.'
      ) from None
    reason = (str(error).splitlines() or ['no reason given'])[0].rstrip('.')
    raise errors.UsageError(
      f'the processes did not find each other: {reason}. Give --coordinator,'
      ' --num_processes and --process_id to each of them.'
    ) from None


def _end_at_an_error() -> None:
  """Lets an error that nobody expected end this process at once.

  JAX's runtime would wait at its end, up to five minutes, for peers that wait
  for this process in the middle of a step.
  """
  show = sys.excepthook

  def end(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    show(kind, error, trace)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)

  sys.excepthook = end
