"""The searches: what each keeps, and when it equals full attention."""

from __future__ import annotations

import dataclasses
from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import aggregate
from dare_jax import search
from dare_jax.search import methods
from tests.models import reference
from tests.search import views

_SIZES = {'hash_bits': 8, 'search_dim': 3, 'num_clusters': views.NUM_CLUSTERS}
_ALL = parameterized.named_parameters(
  *((name, kind) for name, kind in search.SEARCHES.items())
)
_LIMITED = parameterized.named_parameters(
  *((name, kind) for name, kind in search.SEARCHES.items() if name != 'all')
)


def _categories(
  view: search.SearchView, history: Any, target: int
) -> search.SearchView:
  """Returns the view with these categories."""
  ids = jnp.broadcast_to(jnp.asarray(history, jnp.int32), view.keys.shape[:2])
  targets = jnp.full(view.query.shape[:3], target, jnp.int32)
  return view.replace(
    history=view.history.replace(ids={'category': ids}),
    target_ids={'category': targets},
  )


def _arrays(view: search.SearchView) -> Any:
  return map(np.asarray, (view.query, view.keys, view.distance))


def _check_last_visible(view: search.SearchView, found: Any, k: int) -> None:
  mask, indices = map(np.asarray, (found.mask, found.indices))
  for where in np.ndindex(*mask.shape[:3]):
    last = np.flatnonzero(view.visible[where[:2]])[::-1][:k]
    ours = indices[where][mask[where]]
    np.testing.assert_array_equal(ours, last)


class EverySearchTest(parameterized.TestCase):
  @_LIMITED
  def test_room_for_all_is_full_attention(self, kind):
    for seed, shape in enumerate(views.SHAPES):
      view = views.make_view(seed, *shape)
      length = view.keys.shape[1]
      full = views.find(search.FullSearch, view)[0]
      found = views.find(kind, view, top_k=length, **_SIZES)[0]
      np.testing.assert_allclose(
        views.at_home(views.weights(found), found, length),
        views.at_home(views.weights(full), full, length),
        rtol=1e-5,
      )
      np.testing.assert_array_equal(found.mask.sum(-1), full.mask.sum(-1))

  @_LIMITED
  def test_gathering_equals_masking_the_rest(self, kind):
    view = views.make_view(3, clusters=kind is search.ClusterSearch)
    length = view.keys.shape[1]
    found, attention, _ = views.find(kind, view, **_SIZES)
    home = views.at_home(np.ones(found.mask.shape), found, length) > 0
    scores = views.dot(view)
    if kind is search.ClusterSearch:
      # Its scores are of clusters.
      scores = attention.scores
    masked = np.asarray(aggregate.masked_softmax(scores, jnp.array(home)))
    assert not np.any(masked[~home])
    np.testing.assert_allclose(
      views.at_home(views.weights(found), found, length), masked, rtol=1e-5
    )

  @_ALL
  def test_keeps_what_is_visible_each_once_with_its_distance(self, kind):
    view = views.make_view(4)
    length = view.keys.shape[1]
    found = views.find(kind, view, **_SIZES)[0]
    home = views.at_home(np.ones(found.mask.shape), found, length) > 0
    visible = np.asarray(view.visible)[:, :, None]
    assert not np.any(home & ~visible)
    kept = np.minimum(visible.sum(-1), found.mask.shape[-1])
    np.testing.assert_array_equal(
      home.sum(-1), np.broadcast_to(kept, home.shape[:3])
    )
    distance = np.broadcast_to(view.distance[:, :, None], home.shape)
    np.testing.assert_array_equal(
      views.at_home(found.distance, found, length), np.where(home, distance, 0)
    )

  @_ALL
  def test_targets_do_not_see_each_other(self, kind):
    view = views.make_view(5, clusters=True)
    searcher = kind(search.SearchOptions(top_k=3, **_SIZES))
    search_afresh = jax.jit(searcher.init_with_output, static_argnums=2)
    (whole, _), variables = search_afresh(jax.random.key(0), view, views.dot)
    part = view.replace(
      query=view.query[:, :, 1:],
      target_ids=jax.tree.map(lambda x: x[:, :, 1:], view.target_ids),
    )
    find = jax.jit(searcher.apply, static_argnums=2)
    alone, _ = find(variables, part, views.dot)
    for name in ('indices', 'mask', 'distance'):
      np.testing.assert_array_equal(
        getattr(alone, name), getattr(whole, name)[:, :, 1:]
      )
    np.testing.assert_allclose(
      alone.scores, whole.scores[:, :, 1:], rtol=1e-5, atol=1e-6
    )

  @_ALL
  def test_a_constant_on_the_time_terms_leaves_the_weights(self, kind):
    view = views.make_view(6, clusters=True)
    found = views.find(kind, view, **_SIZES)[0]
    moved = view.replace(bias_by_distance=view.bias_by_distance + 2.0)
    after = views.find(kind, moved, **_SIZES)[0]
    np.testing.assert_array_equal(found.indices, after.indices)
    np.testing.assert_allclose(
      views.weights(found), views.weights(after), rtol=1e-5
    )

  @_ALL
  def test_moments_without_behaviors_keep_none(self, kind):
    view = views.make_view(7, clusters=True)
    view = view.replace(visible=jnp.zeros_like(view.visible))
    found = views.find(kind, view, **_SIZES)[0]
    assert not np.any(found.mask)
    assert not np.any(views.weights(found))

  @_LIMITED
  def test_keep_padding_lets_all_places_count(self, kind):
    view = views.make_view(8, *views.SHAPES[1])
    few = view.replace(visible=view.visible & (jnp.arange(7) < 5)[None, None])
    clean = views.find(kind, few, top_k=6)[0]
    quirk = views.find(kind, few, top_k=6, keep_padding=True)[0]
    assert not np.all(clean.mask) and np.all(quirk.mask)
    np.testing.assert_array_equal(quirk.indices, clean.indices)
    np.testing.assert_array_equal(quirk.scores, clean.scores)
    # Padding takes weight from the real ones; without padding all is equal.
    short = ~np.asarray(clean.mask).all(-1)
    total = np.where(clean.mask, views.weights(quirk), 0.0).sum(-1)
    assert (total[short] < 1).all()
    np.testing.assert_allclose(total[~short], 1.0, rtol=1e-5)

  def test_a_search_of_a_few_lines(self):
    """As CONTRIBUTING has it."""

    class RecentSearch(methods.Search):
      def rank(self, view, scorer):
        return methods.Ranking(-view.distance[:, :, None, :], scorer(view))

    view = views.make_view(9)
    found, attention, _ = views.find(RecentSearch, view)
    _check_last_visible(view, found, 3)
    full, everything, _ = views.find(search.FullSearch, view)
    np.testing.assert_array_equal(attention.scores, everything.scores)
    np.testing.assert_array_equal(
      found.scores, np.take_along_axis(full.scores, found.indices, axis=-1)
    )


class CategorySearchTest(parameterized.TestCase):
  @parameterized.parameters(*views.SHAPES)
  def test_the_target_s_category_first_then_the_most_recent(self, *shape):
    view = views.make_view(0, *shape)
    found, attention, _ = views.find(search.CategorySearch, view)
    category = np.asarray(view.history.ids['category'])
    length = view.keys.shape[1]
    for b, m, c in np.ndindex(*found.mask.shape[:3]):
      same = category[b] == int(view.target_ids['category'][b, m, c])
      order = sorted(
        np.flatnonzero(view.visible[b, m]), key=lambda i: (not same[i], -i)
      )
      ours = np.asarray(found.indices[b, m, c])[np.asarray(found.mask[b, m, c])]
      assert ours.tolist() == order[:3]
    # The auxiliary head attends to the kept alone.
    home = views.at_home(np.ones(found.mask.shape), found, length) > 0
    np.testing.assert_array_equal(attention.mask, home)
    np.testing.assert_array_equal(attention.scores, views.dot(view))

  def test_all_of_one_category_and_none_that_match_are_the_last(self):
    view = views.make_view(1, 3, 2, 2, 12)
    for target in (2, 1):
      changed = _categories(view, 2, target)
      found = views.find(search.CategorySearch, changed, top_k=4)[0]
      _check_last_visible(changed, found, 4)

  def test_padding_of_the_target_s_category_is_not_kept(self):
    view = views.make_view(2)
    # Padding has category 0, and so has the target.
    changed = _categories(view, np.where(view.history.mask, 1, 0), 0)
    found = views.find(search.CategorySearch, changed)[0]
    _check_last_visible(changed, found, 3)


class ProjectedSearchTest(parameterized.TestCase):
  @parameterized.parameters(*views.SHAPES)
  def test_ranks_in_its_own_space_and_weighs_by_the_scorer(self, *shape):
    view = views.make_view(0, *shape)
    found, attention, variables = views.find(
      search.ProjectedSearch, view, search_dim=3
    )
    params = variables['params']
    query = np.asarray(view.query) @ np.asarray(params['target']['kernel'])
    keys = np.asarray(view.keys) @ np.asarray(params['behavior']['kernel'])
    scores = np.asarray(views.dot(view))
    for b, m, c in np.ndindex(*found.mask.shape[:3]):
      own = keys[b] @ query[b, m, c] / np.sqrt(3)
      np.testing.assert_allclose(
        attention.scores[b, m, c], own, rtol=1e-5, atol=1e-6
      )
      visible = np.flatnonzero(view.visible[b, m])
      expected = reference.top_k({i: own[i] for i in visible}, 3)
      ours = np.asarray(found.indices[b, m, c])[: len(expected)]
      np.testing.assert_array_equal(ours, expected)
      np.testing.assert_array_equal(
        np.asarray(found.scores[b, m, c])[: len(expected)],
        scores[b, m, c][ours],
      )

  def test_its_maps_learn_from_the_attention_alone(self):
    view = views.make_view(1)
    searcher = search.ProjectedSearch(search.SearchOptions(top_k=3))
    params = searcher.init(jax.random.key(0), view, views.dot)['params']

    def total(params, of_kept):
      found, attention = searcher.apply({'params': params}, view, views.dot)
      scores = found.scores if of_kept else attention.scores
      return jnp.sum(jnp.square(scores))

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    for grad in jax.tree.leaves(gradient(params, True)):
      assert not np.any(grad)
    for grad in jax.tree.leaves(gradient(params, False)):
      assert np.any(grad)


class FullSearchTest(absltest.TestCase):
  def test_leaves_nothing_out(self):
    view = views.make_view(0)
    found, attention, _ = views.find(search.FullSearch, view)
    assert found.everything
    np.testing.assert_array_equal(found.scores, attention.scores)
    np.testing.assert_array_equal(
      found.mask,
      np.broadcast_to(view.visible[:, :, None], found.mask.shape),
    )
    assert not views.find(search.ScoreSearch, view)[0].everything


class TimeTwiceTest(absltest.TestCase):
  def test_equals_the_equation(self):
    view = views.make_view(0)
    found = np.asarray(search.TimeTwiceScorer().apply({}, view))
    width, time = view.query.shape[-1], view.time_dim
    query, keys, distance = _arrays(view)
    bias_of = np.asarray(view.bias_by_distance)
    for b, m, c, i in np.ndindex(*found.shape):
      content = float(np.dot(query[b, m, c], keys[b, i]))
      bias = float(bias_of[distance[b, m, i]])
      both = content + bias * np.sqrt(time)
      np.testing.assert_allclose(
        found[b, m, c, i], both / np.sqrt(width + time) + bias, atol=1e-5
      )

  def test_without_time_it_is_the_inner_product(self):
    view = views.make_view(1)
    view = dataclasses.replace(
      view, time_dim=0, bias_by_distance=jnp.zeros_like(view.bias_by_distance)
    )
    np.testing.assert_allclose(
      search.TimeTwiceScorer().apply({}, view), views.dot(view), rtol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
