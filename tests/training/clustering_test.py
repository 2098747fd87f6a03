"""Clusters in a whole training: made at fixed steps, saved, taken up again."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.experiments import experiment
from tests import tiny


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp('clustering')
  tiny.write_log(folder / 'log.csv')
  return folder


def _config(root, **fields):
  return tiny.config(
    root,
    model__name='twin_v2',
    model__cluster_size=3,
    model__cluster_every_steps=3,
    **fields,
  )


@pytest.mark.slow
def test_stop_and_go_on_equals_no_stop(root, tmp_path):
  straight = tiny.run(_config(root), root / 'straight')
  assert np.isfinite(straight['test']['auc'])
  for number in (2, 6):
    workdir = tmp_path / str(number)
    with pytest.raises(errors.Stopped):
      tiny.run(_config(root), workdir, tiny.StopAtCheck(number))
    tiny.run(_config(root), workdir)
    tiny.assert_same_run(_config(root), workdir, root / 'straight')


def test_a_diverging_loss_is_told_before_its_tables_are_clustered(
  root, tmp_path
):
  made = _config(
    root,
    optim__learning_rate=1e20,
    eval__every_steps=0,
    checkpoint__every_steps=0,
    train__log_every_steps=50,
  )
  with pytest.raises(errors.UsageError, match='not finite somewhere in steps'):
    tiny.run(made, tmp_path)


def test_held_out_behaviors_shape_no_cluster_of_earlier_ones(root):
  loaded = experiment.load(_config(root))
  state = loaded.init_state()
  assert not np.any(state.clusters.cluster)
  found = loaded.cluster(state).clusters
  offsets = loaded.store.behaviors.offsets
  cluster = np.asarray(found.cluster)
  assert cluster[0] == 0 and len(cluster) == offsets[-1] + 1
  held_out = np.full(loaded.store.num_users, offsets[-1])
  for split in ('val', 'test'):
    moments = loaded.pipelines[split].moments
    np.minimum.at(held_out, moments.user, moments.end)
  user = int(loaded.pipelines['test'].moments.user[0])
  own = slice(offsets[user] + 1, held_out[user] + 1)
  sizes = np.bincount(cluster[own])
  assert sizes.max() <= 3 and len(sizes) > 3
  # The batch names the rows that the clusters are looked up by.
  batch = loaded.pipelines['train'].train_batch(0, 4)
  items = np.concatenate([[0], loaded.store.behaviors.columns['item_id']])
  kept = batch.history.ids['item'] != 1  # The unknown stands in for some.
  assert np.array_equal(
    items[batch.history.row][kept], batch.history.ids['item'][kept]
  )


def test_unknown_items_are_clustered_by_the_unknown_row(root):
  loaded = experiment.load(_config(root))
  state = loaded.init_state()
  known = np.arange(loaded.store.vocab_sizes['item']) % 3 != 2
  known[:2] = True
  some = dataclasses.replace(loaded, known={'item': known})
  tables = dict(state.tables['encoder'])
  (name,) = [name for name in tables if name.startswith('item')]
  rows = np.array(tables[name])
  position = loaded.trainer.tables.position
  unknown = rows[position('item', np.array([1]))]
  rows[position('item', np.flatnonzero(~known))] = unknown
  tables[name] = jax.device_put(rows, tables[name].sharding)
  replaced = dataclasses.replace(state, tables={'encoder': tables})
  expected = loaded.cluster(replaced).clusters
  tiny.assert_same_bits(some.cluster(state).clusters, expected)
  plain = loaded.cluster(state).clusters
  assert (np.asarray(plain.cluster) != np.asarray(expected.cluster)).any()
