"""Time ids: exact nearby, log-spaced beyond."""

from __future__ import annotations

from absl.testing import absltest
import hypothesis
from hypothesis import strategies as st
import jax.numpy as jnp
import numpy as np

from dare_jax import embeddings
from dare_jax.embeddings import positions
from tests.models import reference_parts


class PositionsTest(absltest.TestCase):
  @hypothesis.given(exact=st.integers(1, 250), length=st.integers(0, 3000))
  def test_equals_whole_number_arithmetic(self, exact, length):
    ids = embeddings.position_ids(length, exact)
    assert ids.shape == (length + 1,) and ids.dtype == np.int32
    rng = np.random.default_rng(length)
    for distance in {0, length, *rng.integers(0, length + 1, 20).tolist()}:
      assert ids[distance] == reference_parts.time_id(distance, exact)
    assert (np.diff(ids) >= 0).all()
    assert ids.max() < embeddings.num_position_ids(exact)

  @hypothesis.given(exact=st.integers(1, 250))
  def test_made_on_the_device_they_are_the_same(self, exact):
    distance = jnp.arange(9001, dtype=jnp.int32)
    np.testing.assert_array_equal(
      positions.ids_of_distances(distance, exact),
      embeddings.position_ids(9000, exact),
    )

  def test_a_longer_history_leaves_the_ids_alone(self):
    np.testing.assert_array_equal(
      embeddings.position_ids(50, 7), embeddings.position_ids(400, 7)[:51]
    )

  def test_doublings_are_eight_ids_apart(self):
    ids = embeddings.position_ids(200 * 16, 200)
    starts = ids[[200 * 2**n for n in range(1, 5)]]
    np.testing.assert_array_equal(np.diff(starts), [8, 8, 8])

  def test_the_last_range_takes_all_the_rest(self):
    ids = embeddings.position_ids(1 << 18, 1)
    assert ids[-1] == embeddings.num_position_ids(1) - 1
    assert ids[1 << 16] == ids[-1]


if __name__ == '__main__':
  absltest.main()
