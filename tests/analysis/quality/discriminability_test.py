"""What clusters tell of a label, where it is known."""

import math

import numpy as np

from dare_jax.analysis.quality import discriminability


def test_clusters_that_are_the_label_tell_all_of_it():
  """A third is clicked, and lies far from the rest."""
  label = np.tile([True, False, False], 40)
  vectors = np.where(label[:, None], 5.0, -5.0) + np.arange(120)[:, None] * 1e-3
  found = discriminability.scores(vectors, label, [2])
  entropy = math.log2(3) - 2 / 3
  np.testing.assert_allclose(found['mi'], [[entropy] * 5], rtol=1e-9)
  np.testing.assert_allclose(found['nmi'], [[1.0] * 5], rtol=1e-9)


def test_clusters_by_something_else_tell_nothing():
  """Two far groups, each with one clicked in two."""
  label = np.tile([True, False], 40)
  place = np.repeat([-5.0, 5.0], 40)
  vectors = np.stack([place, np.zeros(80)], axis=1)
  found = discriminability.scores(vectors, label, [2])
  np.testing.assert_allclose(found['mi'], [[0.0] * 5], atol=1e-12)
  np.testing.assert_allclose(found['nmi'], [[0.0] * 5], atol=1e-12)


def test_four_places_of_which_two_tell():
  """Of four places two are clicked, one is not, one by halves: a bit of 1/4."""
  place = np.repeat(np.arange(4.0), 20)
  # P(clicked) = (1 + 1 + 0 + 1/2) / 4.
  label = (place < 2) | ((place == 3) & (np.arange(80) % 2 == 0))
  vectors = np.stack([100 * (place // 2), 100 * (place % 2)], axis=1)
  found = discriminability.scores(vectors, label, [4])
  clicked = 5 / 8
  entropy = -clicked * math.log2(clicked) - (1 - clicked) * math.log2(
    1 - clicked
  )
  np.testing.assert_allclose(max(found['mi'][0]), entropy - 1 / 4, rtol=1e-9)
