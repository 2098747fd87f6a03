"""What all tests share: CPU, no silent broadcasting, warnings are errors."""

from collections.abc import Callable
import ctypes
import gc
from importlib import metadata
import inspect
import os
import pathlib
import shutil
import signal
import tempfile
from typing import Any

os.environ['JAX_PLATFORMS'] = 'cpu'
# Most of the time goes into machine code that runs for a moment: it is made
# fast, not fast machine code. What CI runs beside the tests is not. The older
# emitters compile a model's step in a third of the time; later versions have
# no others, and end at a flag that they do not know.
os.environ.setdefault(
  'XLA_FLAGS',
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  + (
    ' --xla_cpu_use_fusion_emitters=false'
    ' --xla_cpu_parallel_codegen_split_count=1'
    if metadata.version('jaxlib').startswith('0.10.')
    else ''
  ),
)
# What one test has compiled, a later one reads: also in the processes that
# tests start, and after a worker has forgotten it. Each worker has its own
# folder, because JAX does not write these files whole or not at all.
os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='dare_jax_')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'

import hypothesis
import jax
import jaxtyping
import pytest

from dare_jax.configs import base
from dare_jax.logs import options as log_options
from dare_jax.store import datasets

jax.config.update('jax_numpy_rank_promotion', 'raise')

# The shapes in annotations are checked, from these modules' first import on.
jaxtyping.install_import_hook(
  [
    'dare_jax.aggregate',
    'dare_jax.data.data_card',
    'dare_jax.data.history',
    'dare_jax.data.ids',
    'dare_jax.data.label_counts',
    'dare_jax.data.pipeline',
    'dare_jax.data.split_advice',
    'dare_jax.data.splits',
    'dare_jax.data.targets',
    'dare_jax.embeddings',
    'dare_jax.models',
    'dare_jax.search',
    'dare_jax.serving',
    'dare_jax.store',
    'dare_jax.tables',
    'dare_jax.topk',
    'dare_jax.training',
  ],
  'beartype.beartype',
)

# After the hook, under which the modules are imported.
from tests import shared_trainers  # noqa: E402

# Two shared cores: a slow example is the machine's fault, not the code's. The
# examples are the same in every run, so that a red suite can be reproduced.
hypothesis.settings.register_profile(
  'suite', deadline=None, derandomize=True, max_examples=30
)
hypothesis.settings.load_profile('suite')

# Bytes of a worker from which on it forgets what it has compiled, and by how
# many it must have grown since it last did: not all that it holds is programs.
_MEMORY = 1.4e9
_GROWTH = 3e8

_WARNINGS = (
  'error',
  # Other people's deprecations, which we cannot mend.
  'ignore::DeprecationWarning:(?!dare_jax|tests)',
  'ignore::PendingDeprecationWarning:(?!dare_jax|tests)',
  'ignore::FutureWarning:(?!dare_jax|tests)',
  # Raised by the interpreter when it happens to collect garbage.
  'ignore::pytest.PytestUnraisableExceptionWarning',
  'ignore::ResourceWarning',
)


def pytest_configure(config):
  for line in _WARNINGS:
    config.addinivalue_line('filterwarnings', line)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Of a test with quick cases, the other cases are slow."""
  for item in items:
    mark = item.get_closest_marker('quick_cases')
    if mark is not None and _case(item) not in mark.args:
      item.add_marker(pytest.mark.slow)


def _case(item: pytest.Function) -> str:
  """Returns the name of a test's case, of pytest or of absl."""
  if hasattr(item, 'callspec'):
    return item.callspec.id
  name = inspect.unwrap(item.function).__name__
  return item.name.removeprefix(name).removeprefix('_')


def pytest_collection_finish():
  """What was imported stays: the collector of garbage need not look at it."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(20_000, 20, 20)


def pytest_unconfigure():
  shutil.rmtree(os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)


@pytest.fixture(scope='session', autouse=True)
def one_trainer_a_model():
  with shared_trainers.shared():
    yield


@pytest.fixture(autouse=True)
def own_signals():
  """A command that a test runs in this process takes them over for good."""
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = {number: signal.getsignal(number) for number in numbers}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.fixture(autouse=True)
def bounded_memory():
  """Programs live on in JAX's caches, some 15 MB with each test of a model.

  Forgetting them costs: what is used again is traced again, and read from the
  folder of compiled programs.
  """
  yield
  if _resident() > max(_MEMORY, _Forgotten.resident + _GROWTH):
    shared_trainers.forget()
    jax.clear_caches()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _Forgotten.resident = _resident()


class _Forgotten:
  """What was left when the worker last forgot."""

  resident = 0


def _resident() -> int:
  """Bytes of this process in memory; 0 where the system does not say."""
  pages = pathlib.Path('/proc/self/statm')
  if not pages.exists():
    return 0
  return int(pages.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.fixture(scope='session')
def journey_config(tmp_path_factory):
  """The default config, its data folder a temporary one."""
  config = base.get_config()
  config.data.data_dir = str(tmp_path_factory.mktemp('journey'))
  return config


@pytest.fixture(scope='session')
def journey_store(journey_config):
  """The history store of the whole Complete Journey log."""
  return datasets.prepare(log_options.of_section(journey_config.data))


@pytest.fixture
def data(tmp_path: pathlib.Path) -> Any:
  """The data section of the base config, with a data_dir of its own."""
  section = base.get_config().data
  section.data_dir = str(tmp_path / 'prepared')
  return section


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Callable[[str, str | bytes], str]:
  """Writes a file and returns its path."""

  def write_file(name: str, content: str | bytes) -> str:
    path = tmp_path / name
    if isinstance(content, str):
      content = content.encode()
    path.write_bytes(content)
    return str(path)

  return write_file
