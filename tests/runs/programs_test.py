"""Compiled programs: one for each shape, dropped where maps run out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.parallel import mesh as mesh_lib
from dare_jax.process import memory_maps
from dare_jax.runs import programs
from dare_jax.training import feed
from tests.models import examples


@pytest.fixture
def allow(tmp_path, monkeypatch):
  """Sets how many maps the system seems to allow a process."""

  def set_limit(number):
    limit = tmp_path / 'max_map_count'
    limit.write_text(f'{number}\n')
    monkeypatch.setattr(memory_maps, '_LIMIT', limit)

  return set_limit


def _batch(length, rows):
  made = examples.make_batch(length=length)
  return dataclasses.replace(made, rows={'item': jnp.arange(rows)})


def test_maps_near_the_limit_are_noticed(allow, monkeypatch, tmp_path):
  allow(10)
  assert memory_maps.nearly_all_taken()
  allow(10**9)
  assert not memory_maps.nearly_all_taken()
  monkeypatch.setattr(memory_maps, '_LIMIT', tmp_path / 'none')
  assert not memory_maps.nearly_all_taken()


@pytest.mark.parametrize(('limit', 'compiled'), [(10**9, 3), (10, 4)])
def test_steps_are_dropped_where_maps_run_out(allow, limit, compiled):
  allow(limit)
  traced = []

  @jax.jit
  def step(state, batch):
    traced.append(batch)
    return state + batch.rows['item'].sum()

  made = programs.Programs(step)
  batches = [_batch(*shape) for shape in ((8, 4), (8, 5), (12, 4))]
  for batch in (*batches, batches[0]):
    expected = 1 + batch.rows['item'].sum()
    assert made.compiled(jnp.ones(()), batch)(jnp.ones(()), batch) == expected
  assert len(traced) == compiled
  assert (batches[1] in made) == (limit > 10)


def test_rows_that_only_grow_need_few_programs():
  """And they are the same rows, with more filling."""
  rng = np.random.default_rng(0)
  vocab = {'item': 5_000}
  batches = [
    examples.make_batch(
      seed, windows=windows, length=400, vocab=vocab, num_padding=()
    )
    for seed, windows in enumerate(rng.permutation([1, 2, 3, 4, 2, 3]))
  ]
  batches = [jax.tree.map(np.asarray, batch) for batch in batches]
  each, growing = (
    _placed(batches, vocab, only_wider) for only_wider in (False, True)
  )
  sizes = [len(rows) for rows in growing]
  assert sizes == np.maximum.accumulate([len(rows) for rows in each]).tolist()
  assert len(set(sizes)) < len({len(rows) for rows in each})
  for rows, wider in zip(each, growing, strict=True):
    np.testing.assert_array_equal(rows, wider[: len(rows)])
    assert (wider[len(rows) :] >= 5_000).all()


def _placed(batches, vocab, only_wider):
  """Returns the rows of the item tables that each batch reads."""
  placer = feed.Placer(mesh_lib.make(), vocab, only_wider)
  return [
    np.asarray(placer.place(placer.rows(batch), None).batch.rows['item'])
    for batch in batches
  ]
