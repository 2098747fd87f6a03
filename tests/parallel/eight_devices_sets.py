"""Tables of sets on a mesh; run by `devices_test` with eight fake devices."""

from __future__ import annotations

import jax
import numpy as np
import polars as pl
import pytest

from dare_jax import embeddings
from dare_jax.embeddings import set_tables
from dare_jax.parallel import mesh as mesh_lib
from dare_jax.store import set_members
from dare_jax.training import state as train_state
from dare_jax.training import state_parts
from tests.models import examples
from tests.parallel import parity

_VOCAB = {**parity.VOCAB, 'tags': 52}


def _members() -> set_members.SetMembers:
  rng = np.random.default_rng(0)
  some = (rng.choice(list('abcdefgh'), rng.integers(1, 5)) for _ in range(50))
  names = ['|'.join(sorted({*parts})) for parts in some]
  return set_members.of_names(pl.Series(names), '|')


@pytest.mark.parametrize('row_sparse_from', [10, 10_000])
def test_sets_of_one_device(row_sparse_from):
  """The sets that a device's part of a batch reads, or all of them."""
  members = _members()
  shape = embeddings.SetShape('tags', members.num_members, members.widest)
  model = examples.build('dare', vocab_sizes=_VOCAB, sets=(shape,))
  optim = examples.optim(row_sparse_from=row_sparse_from, tables='sgd')
  batch = examples.make_batch(3, windows=8, vocab=_VOCAB)
  found = []
  for count in (1, 8):
    mesh = mesh_lib.make(jax.devices()[:count])
    trainer = train_state.Trainer(model, optim, 100, mesh)
    sets = set_tables.on_mesh({'tags': members}, trainer.mesh)
    state = state_parts.with_given(trainer.init(0, batch), {}, sets)
    start = jax.device_get(state.tables['encoder'])
    placed = mesh_lib.place(trainer.mesh, jax.tree.map(np.asarray, batch))
    losses = []
    for _ in range(3):
      state, loss = trainer.train_step(state, placed)
      losses.append(float(loss))
    moved = {
      role: np.asarray(state.tables['encoder'][f'tags_{role}'])
      - start[f'tags_{role}']
      for role in embeddings.ROLES
    }
    assert min(np.abs(move).max() for move in moved.values()) > 1e-5
    found.append((losses, moved))
  for one, many in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(many, one, rtol=1e-3, atol=1e-6)
