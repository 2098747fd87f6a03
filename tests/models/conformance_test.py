"""What every ranker must do: all presets, with every plan and every search."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import numpy as np
import pytest

from dare_jax import embeddings
from dare_jax import types
from tests.models import conformance
from tests.models import examples

_CLOSE = conformance.CLOSE


# Padding and what lies after the moment.


@conformance.ALL
def test_more_left_padding_changes_nothing(case):
  """Less padding on the left, and as much more after every moment.

  `equivalence_test` has longer histories.
  """
  model, variables, _ = conformance.example(case)
  batch = jax.device_get(examples.make_batch(num_padding=(2, 3, 4, 5, 2, 2)))
  more = np.arange(examples.LENGTH) >= examples.LENGTH - 2
  move = lambda x: np.where(more, x.dtype.type(1), np.roll(x, -2, axis=1))
  history = jax.tree.map(move, batch.history)
  less = batch.replace(history=history, end=batch.end - 2)
  conformance.check_same_padded(
    examples.measure(model, variables, batch),
    examples.measure(model, variables, less),
    2,
  )


@conformance.ALL
def test_masked_ids_mean_nothing_and_get_no_gradient(case):
  model, variables, batch = conformance.example(case)
  # Rows that only places without mask read.
  marked = {f: rows - 1 for f, rows in examples.VOCAB.items()}
  ids = {
    f: np.where(batch.history.mask, np.minimum(v, marked[f] - 1), marked[f])
    for f, v in batch.history.ids.items()
  }
  target_ids = {
    f: np.minimum(v, marked[f] - 1) for f, v in batch.targets.ids.items()
  }
  targets = batch.targets.replace(ids=target_ids)
  batch = batch.replace(history=batch.history.replace(ids=ids), targets=targets)
  zeros = jax.tree.map(lambda x: x * batch.history.mask, ids)
  clean = batch.replace(history=batch.history.replace(ids=zeros))
  measured = examples.measure(model, variables, batch)
  for path, grad in conformance.tables(measured.grads):
    field = path.split('_')[0]
    if field in marked:
      assert not np.any(grad[marked[field]]), path
      assert not np.any(grad[0]), path
  chex.assert_trees_all_equal(
    measured.loss, examples.measure(model, variables, clean).loss
  )


@conformance.ALL
def test_padding_row_and_unused_positions_get_no_gradient(case):
  model, variables, batch = conformance.example(case)
  measured = conformance.measured(case)
  used = {
    'item': conformance.used(batch, 'item'),
    'category': conformance.used(batch, 'category'),
    'time': conformance.used_times(model, batch),
  }
  for path, grad in conformance.tables(measured.grads):
    rows = set(np.flatnonzero(np.any(grad != 0, axis=-1)).tolist())
    assert rows <= used[path.split('_')[0]], path
    assert np.isfinite(grad).all(), path


@conformance.ALL
def test_what_comes_after_a_moment_is_invisible(case):
  model, variables, batch = conformance.example(case)
  batch = batch.replace(end=np.full_like(batch.end, 4))
  after = np.arange(examples.LENGTH) >= 4
  changed = batch.replace(
    history=batch.history.replace(
      ids=jax.tree.map(lambda x: np.where(after, 1, x), batch.history.ids)
    )
  )
  expected = examples.measure(model, variables, batch)
  measured = examples.measure(model, variables, changed)
  chex.assert_trees_all_equal(measured.loss, expected.loss)
  chex.assert_trees_all_equal(measured.output.logits, expected.output.logits)
  chex.assert_trees_all_close(measured.grads, expected.grads, **_CLOSE)


@conformance.ALL
def test_empty_histories_are_finite_and_without_interest(case):
  model, variables, batch = conformance.example(case)
  nothing = batch.replace(end=np.zeros_like(batch.end))
  padding = batch.replace(history=jax.tree.map(np.zeros_like, batch.history))
  for empty in (nothing, padding):
    measured = examples.measure(model, variables, empty)
    chex.assert_tree_all_finite((measured.loss, measured.grads))
    chex.assert_tree_all_finite(measured.batch_stats)
    assert not np.any(measured.output.search.mask)
    evaluated = examples.evaluate(model, variables, empty)
    assert not np.any(evaluated.interest)
    chex.assert_tree_all_finite(evaluated.output.logits)
    for path, grad in conformance.tables(measured.grads):
      table_of = embeddings.PLANS[model.config.plan].table_of
      target = table_of['representation', 'target']
      if not path.endswith(f'_{target}'):
        assert not np.any(grad), path


# Axes.


@conformance.ALL
def test_order_counts_only_through_positions(case):
  model, variables, batch = conformance.example(case)
  if model.config.search in ('category', 'simhash'):
    pytest.skip('equals are told apart by recency')
  if model.config.match_fields:
    pytest.skip('the heads know how far back a match lies')
  # All behaviors at one position: every time row but the target's is equal.
  tables = jax.tree.map_with_path(
    lambda path, x: (
      np.stack([x[0], *[x[1]] * (len(x) - 1)])
      if path[-1].key.startswith('time')
      else x
    ),
    jax.device_get(variables['tables']),
  )
  variables = {**variables, 'tables': tables}
  batch = batch.replace(end=np.full_like(batch.end, examples.LENGTH))
  order = np.array([4, 0, 5, 2, 1, 3])
  shuffled = batch.replace(
    history=jax.tree.map(lambda x: x[:, order], batch.history)
  )
  expected = examples.measure(model, variables, batch)
  measured = examples.measure(model, variables, shuffled)
  grads = (measured.grads['params'], expected.grads['params'])
  chex.assert_trees_all_close(measured.loss, expected.loss, **_CLOSE)
  chex.assert_trees_all_close(*grads, **_CLOSE)


@conformance.ALL
def test_candidates_are_independent_rows(case):
  # [3, m, c] -> [3 c, m, 1].
  _check_split(case, lambda x: np.moveaxis(x, 2, 1), axis=2)


@conformance.ALL
def test_moments_are_separate_windows(case):
  # [3, m, c] -> [3 m, 1, c].
  _check_split(case, lambda x: x, axis=1)


def _check_split(
  case: str, to_front: Callable[[np.ndarray], np.ndarray], axis: int
) -> None:
  """Half of the windows, whole, and each part of them as its own window.

  To keep the shape, what is left of the axis and the other windows are
  filled up with targets of weight 0.
  """
  model, variables, batch = conformance.example(case)
  half = batch.targets.label.shape[0] // 2
  index = [slice(None)] * 3
  index[axis] = slice(1, None)
  rest = tuple(index)

  def split(x: np.ndarray) -> np.ndarray:
    """Parts to windows; the axis then repeats its only part."""
    parts = to_front(x[:half])
    rows = parts.reshape(-1, *parts.shape[2:])
    return np.stack([rows, rows], axis=axis)

  repeat = lambda x: np.repeat(x[:half], 2, axis=0)
  targets = jax.tree.map(split, batch.targets)
  targets.weight[rest] = 0.0
  end = repeat(batch.end)
  if axis == 1:
    end = np.stack([batch.end[:half].ravel()] * 2, axis=1)
  rows = types.Batch(
    history=jax.tree.map(repeat, batch.history),
    end=end,
    targets=targets,
  )
  weight = batch.targets.weight * (np.arange(2 * half) < half)[:, None, None]
  whole = batch.replace(targets=batch.targets.replace(weight=weight))
  expected = examples.measure(model, variables, whole)
  measured = examples.measure(model, variables, rows)
  # The batch statistics are over the same rows.
  conformance.check_same(measured, expected)
  for given, wanted in (
    (measured.output.logits, expected.output.logits),
    (
      examples.predict(model, variables, rows),
      examples.predict(model, variables, whole),
    ),
  ):
    chex.assert_trees_all_close(
      np.take(np.asarray(given), 0, axis=axis),
      np.take(split(np.asarray(wanted)), 0, axis=axis),
      **_CLOSE,
    )


@conformance.ALL
def test_targets_of_weight_zero_are_not_there(case):
  model, variables, batch = conformance.example(case)
  is_blank = np.arange(2) == 1
  light = batch.targets.replace(
    weight=np.where(is_blank, 0.0, batch.targets.weight)
  )
  blank = light.replace(
    ids={f: np.where(is_blank, 0, v) for f, v in light.ids.items()},
    label=np.where(is_blank, 1.0, light.label),
  )
  expected = examples.measure(model, variables, batch.replace(targets=light))
  measured = examples.measure(model, variables, batch.replace(targets=blank))
  conformance.check_same(measured, expected)
  # Nor do they count in a mean: the mean over the others alone.
  label = np.asarray(batch.targets.label[:, :, 0])
  outputs = (expected.output.logits, expected.output.aux_logits)
  logits = np.stack([values for values in outputs if values is not None])
  signed = np.where(label > 0.5, 1.0, -1.0) * logits[..., 0]
  entropy = np.log1p(np.exp(-signed.astype(np.float64)))
  np.testing.assert_allclose(
    expected.loss, entropy.mean(axis=(1, 2)).sum(), rtol=1e-5
  )


# The search.


@conformance.ALL_SEARCHES
def test_keeping_all_equals_no_search(case):
  """All are few enough here; `equivalence_test` keeps more."""
  model, variables, batch = conformance.example(case)
  first = np.argmax(batch.history.mask, axis=1).astype(np.int32)
  few = np.minimum(batch.end, first[:, None] + model.config.top_k)
  conformance.check_no_search(case, model, variables, batch.replace(end=few))


@conformance.ALL
def test_search_keeps_only_visible_behaviors_each_once(case):
  model, variables, batch = conformance.example(case)
  found = examples.evaluate(model, variables, batch).output.search
  visible = np.asarray(batch.history.mask)[:, None] & (
    np.arange(examples.LENGTH) < np.asarray(batch.end)[..., None]
  )
  indices, mask = np.asarray(found.indices), np.asarray(found.mask)
  for where in np.ndindex(*mask.shape[:3]):
    kept = indices[where][mask[where]]
    assert len(set(kept.tolist())) == len(kept)
    assert visible[where[:2]][kept].all()
    want = min(visible[where[:2]].sum(), found.mask.shape[-1])
    assert len(kept) == want


@conformance.ALL
def test_representation_never_moves_the_choice(case):
  model, variables, batch = conformance.example(case)
  searching = conformance.attention_tables(model)
  changed = jax.tree_util.tree_map_with_path(
    lambda path, x: (
      x if conformance.suffix(path) in searching else 1.0 - 3.0 * x
    ),
    variables['tables'],
  )
  found = examples.evaluate(model, variables, batch).output.search
  after = examples.evaluate(
    model, {**variables, 'tables': changed}, batch
  ).output.search
  # The mean of the history is of representation vectors.
  found, after = (result.replace(mean=None) for result in (found, after))
  chex.assert_trees_all_equal(found, after)


@conformance.ALL
def test_attention_learns_through_the_weights_alone(case):
  model, variables, batch = conformance.example(case)
  if not conformance.is_decoupled(model):
    pytest.skip('its attention tables also represent')
  # A single visible behavior has weight 1 whatever its score.
  first = np.argmax(batch.history.mask, axis=1).astype(np.int32)
  single = batch.replace(
    end=np.broadcast_to(first[:, None] + 1, batch.end.shape)
  )
  grads = examples.measure(model, variables, single).grads
  learned = conformance.measured(case).grads
  searching = conformance.attention_tables(model)
  for (name, grad), (_, other) in zip(
    conformance.tables(grads), conformance.tables(learned), strict=True
  ):
    if name.split('_', 1)[1] in searching:
      assert not np.any(grad), name
    else:
      assert np.any(grad), name
    assert np.any(other), name


# Tables.


@conformance.ALL
def test_reads_the_rows_of_the_batch_alone(case):
  """Compact tables, filled up; `equivalence_test` has them as they are."""
  model, variables, batch = conformance.example(case)
  rows = conformance.rows_of(batch)

  def fill(field: str, table: np.ndarray) -> np.ndarray:
    space = examples.VOCAB[field] - len(rows[field])
    return np.pad(table, ((0, space), (0, 0)), constant_values=np.nan)

  tables = conformance.select(variables['tables'], rows, fill)
  measured = examples.measure(
    model, {**variables, 'tables': tables}, conformance.remap(batch, rows)
  )
  expected = conformance.measured(case)
  conformance.check_compact(measured, expected, rows)
  chex.assert_trees_all_equal(measured.loss, expected.loss)
