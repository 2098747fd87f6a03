"""Two processes that prepare the same log at the same moment."""

import subprocess
import sys

import pytest

from dare_jax.logs import options as log_options
from dare_jax.store import datasets
from dare_jax.store import history_store
from tests import tiny


@pytest.mark.slow
def test_the_second_waits_and_takes_what_the_first_made(tmp_path):
  tiny.write_log(tmp_path / 'log.csv')
  made = tiny.config(tmp_path)
  code = 'from tests import tiny; from dare_jax.store import datasets; '
  code += 'from dare_jax.logs import options as log_options; '
  code += 'import pathlib, sys; made = tiny.config(pathlib.Path(sys.argv[1]));'
  code += 'datasets.open_or_prepare(log_options.of_section(made.data))'
  pair = [
    subprocess.Popen(
      [sys.executable, '-c', code, str(tmp_path)],
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(2)
  ]
  told = [process.communicate(timeout=300)[1] for process in pair]
  assert [process.returncode for process in pair] == [0, 0], told
  assert sum(text.count('preparing csv_log in') for text in told) == 1, told
  path = datasets.store_path(log_options.of_section(made.data))
  assert history_store.open_store(path).num_users == 60
  left = sorted(file.name for file in path.parent.iterdir())
  assert left == [path.name, 'tfds']
