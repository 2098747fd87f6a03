"""The training of docs/tables.md, from its own code.

    JAX_PLATFORMS=cpu python -m tests.tables.page --devices=8

runs it at full size and prints its time and memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import pathlib
import re
import resource
import statistics
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np

_PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'tables.md'
ROWS = 10_000_000
MODELS = ('Your model', 'Other models', 'Plain JAX')


def blocks() -> dict[str, str]:
  """Returns heading -> the code below it."""
  sections = re.split(r'^## (.*)$', _PAGE.read_text(), flags=re.MULTILINE)
  return {
    title: '\n'.join(re.findall(r'```python\n(.*?)```', text, re.DOTALL))
    for title, text in zip(sections[1::2], sections[2::2], strict=True)
  }


def batches(rows: int, size: int) -> Any:
  """Returns what makes a batch: low ids are popular, and users differ."""

  def batch_of(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    draw = lambda: (rows ** rng.random(size)).astype(np.int32)
    ids = {'user': draw(), 'item': draw()}
    label = (ids['user'] % 3 + ids['item'] % 2 < 2).astype(np.float32)
    return {'ids': ids, 'label': label}

  return batch_of


class Page:
  """The names that the page's code defines, run part by part."""

  def __init__(self, rows: int, model: str = MODELS[0]) -> None:
    """Runs the page up to its step.

    Args:
      rows: of each table.
      model: heading of the model.
    """
    self._code = blocks()
    first = self._code['The tables']
    assert f'ROWS = {ROWS:_}\n' in first
    self._code['The tables'] = first.replace(f'{ROWS:_}', str(rows))
    self.names: dict[str, Any] = {}
    for title in ('The tables', model, 'The step'):
      self.run(title)

  def run(self, title: str, given: Mapping[str, Any] | None = None) -> None:
    """Runs the code below a heading, with more names."""
    self.names.update(given or {})
    exec(
      compile(self._code[title], f'{_PAGE.name}: {title}', 'exec'), self.names
    )


def main(flags: list[str]) -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', type=int, default=ROWS)
  parser.add_argument('--batch_size', type=int, default=8192)
  parser.add_argument('--devices', type=int, default=1)
  parser.add_argument('--steps', type=int, default=100)
  chosen = parser.parse_args(flags)
  jax.config.update('jax_num_cpu_devices', max(chosen.devices, 2))
  page = Page(chosen.rows)
  code = page._code['On a mesh']
  all_devices = 'tables.make_mesh()'
  assert all_devices in code
  page._code['On a mesh'] = code.replace(
    all_devices, f'tables.make_mesh(jax.devices()[:{chosen.devices}])'
  )
  batch_of = batches(chosen.rows, chosen.batch_size)
  page.run('On a mesh', {'STEPS': 3, 'batch_of': batch_of})
  state, step, mesh = (page.names[name] for name in ('state', 'step', 'mesh'))
  place = page.names['tables'].place
  jax.block_until_ready(state)  # Else the first step waits for its start.
  losses, times = [], []
  clocks = time.perf_counter, time.process_time
  for number in range(chosen.steps):
    batch, begin = batch_of(number), [clock() for clock in clocks]
    state, loss = step(state, place(mesh, batch))
    jax.block_until_ready(state)
    times.append([c() - b for c, b in zip(clocks, begin, strict=True)])
    losses.append(float(loss))
  wall, cpu = (1e3 * statistics.median(of) for of in zip(*times, strict=True))
  held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  print(
    f'{chosen.rows:,} rows, {chosen.devices} devices:'
    f' {wall:.1f} ms a step, {cpu:.1f} of CPU (medians),'
    f' state {held / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB,'
    f' loss {np.mean(losses[:9]):.3f} -> {np.mean(losses[-9:]):.3f}'
  )
  with tempfile.TemporaryDirectory() as folder:
    begin = time.perf_counter()
    page.run('Checkpoints', {'state': state, 'FOLDER': f'{folder}/state'})
    jax.block_until_ready(page.names['state'])
    print(f'saved, restored on 2 devices: {time.perf_counter() - begin:.0f} s')


if __name__ == '__main__':
  main(sys.argv[1:])
