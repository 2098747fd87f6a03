"""Why losses of several devices part from those of one in float32.

    JAX_PLATFORMS=cpu python -m tests.parallel.parting --model=twin

Both train over the batches of `parity --float32`, step by step. Before each
step, one device searches with the state of either: how many targets find other
behaviors, how far apart the scores of those exchanged are, and how far those of
the others have moved. Before the second step: which elements of the dense
parameters have parted by more than a tenth of the learning rate, and how large
their gradients were beside those of the other elements.
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any
from unittest import mock

import jax
import numpy as np
import optax

from dare_jax.parallel import mesh as mesh_lib
from dare_jax.training import state as train_state
from tests.models import examples
from tests.parallel import parity

_PARTED = 1e-3  # A tenth of the learning rate.


def trainer(count: int, chosen: argparse.Namespace) -> train_state.Trainer:
  """Returns a trainer on so many devices."""
  scale = functools.partial(optax.scale_by_adam, eps=chosen.epsilon)
  adam = functools.partial(optax.adam, eps=chosen.epsilon)
  with (
    mock.patch.object(optax, 'adam', adam),
    mock.patch.object(optax, 'scale_by_adam', scale),
  ):
    model = examples.build(
      chosen.model, vocab_sizes=parity.VOCAB, top_k=chosen.top_k
    )
    optim = examples.optim(row_sparse_from=100, tables=chosen.tables)
    mesh = mesh_lib.make(jax.devices()[:count])
    return train_state.Trainer(model, optim, 100, mesh)


def look(made: train_state.Trainer, state: Any, batch: Any) -> tuple[Any, Any]:
  """Returns what the search of one device finds, and dense gradients."""

  def part(state: Any, batch: Any) -> Any:
    batch, compact = made.gather_part(state, batch)
    variables = {
      'params': state.params,
      'tables': {'encoder': compact},
      'batch_stats': state.batch_stats,
      'constants': state.constants,
    }
    output, _ = made._learner.apply(
      variables, batch, train=True, mutable=['batch_stats']
    )
    found = made.gradient_part(state, batch, compact)
    return output.search, found.params

  specs = (made.specs(state), mesh_lib.SPLIT)
  seen = jax.shard_map(
    part,
    mesh=made.mesh,
    in_specs=specs,
    out_specs=mesh_lib.WHOLE,
    check_vma=False,
  )
  return jax.device_get(jax.jit(seen)(state, batch))


def kept(search: Any) -> list[dict[int, float]]:
  """Returns index -> score of the behaviors found for each target."""
  rows = (x.reshape(-1, x.shape[-1]) for x in (search.indices, search.mask))
  scores = search.scores.reshape(-1, search.scores.shape[-1])
  return [
    {int(i): float(s) for i, m, s in zip(*row, strict=True) if m}
    for row in zip(*rows, scores, strict=True)
  ]


def exchanged(one: Any, other: Any) -> str:
  """Says what two searches find differently."""
  pairs = list(zip(kept(one), kept(other), strict=True))
  moved = max(abs(a[i] - b[i]) for a, b in pairs for i in a.keys() & b.keys())
  gaps = [
    abs(max(a[i] for i in a.keys() - b.keys()) - b[j])
    for a, b in pairs
    for j in b.keys() - a.keys()
  ]
  nearest = f', at most {max(gaps):.1e} apart' if gaps else ''
  others = sum(a.keys() != b.keys() for a, b in pairs)
  return f'{others} of {len(pairs)} find others{nearest}; moved by {moved:.1e}'


def parted(one: Any, many: Any, gradients: Any) -> str:
  """Says which dense parameters have parted, and by what gradients."""
  flat = lambda tree: np.concatenate(
    [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
  )
  own, gap = np.abs(flat(gradients)), np.abs(flat(one) - flat(many))
  far = gap > _PARTED
  if not far.any():
    return f'no dense parameter has parted by {_PARTED}'
  return (
    f'{far.sum()} of {far.size} dense parameters have parted, by up to'
    f' {gap.max():.3f}; their gradients are at most {own[far].max():.1e}, the'
    f' median of the others {np.median(own[~far]):.1e}'
  )


def main(flags: list[str]) -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--model', default='twin')
  parser.add_argument('--tables', default='lazy_adam')
  parser.add_argument('--devices', type=int, default=4)
  parser.add_argument('--steps', type=int, default=5)
  parser.add_argument('--epsilon', type=float, default=1e-8, help="Adam's")
  parser.add_argument('--top_k', type=int, default=3, help='6 keeps all')
  chosen = parser.parse_args(flags)
  jax.config.update('jax_num_cpu_devices', chosen.devices)
  made = [trainer(count, chosen) for count in (1, chosen.devices)]
  batches = [parity.batch_of(seed, 64) for seed in range(5)]
  states = [part.init(0, batches[0]) for part in made]
  own = jax.tree.map(lambda leaf: leaf.sharding, states[0])
  for step in range(chosen.steps):
    host = jax.tree.map(np.array, batches[step % 5])
    held = [jax.tree.map(np.array, state) for state in states]
    one = mesh_lib.place(made[0].mesh, host)
    seen = [look(made[0], jax.device_put(h, own), one) for h in held]
    losses = []
    for i, part in enumerate(made):
      placed = mesh_lib.place(part.mesh, host)
      states[i], loss = part.train_step(states[i], placed)
      losses.append(float(loss))
    gap = abs(losses[0] - losses[1])
    told = exchanged(seen[0][0], seen[1][0])
    print(f'step {step + 1}: losses {gap:.0e} apart; {told}', flush=True)
    if not step:
      after = [jax.device_get(state.params) for state in states]
      print(f'  then {parted(*after, seen[0][1])}', flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
