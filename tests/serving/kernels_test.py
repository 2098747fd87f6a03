"""The kernels, as plain operations on the CPU, against sorting; lowering."""

from __future__ import annotations

import functools

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax.serving import kernels
from dare_jax.serving.kernels import gpu
from dare_jax.serving.kernels import lanes
from dare_jax.serving.kernels import tpu
from tests.models import reference

_K = 8
_SIZES = tpu.Sizes(width=128, block=256, tile=8)
# b, c, l, d: a part of a block at the end, two tiles of targets; rows as wide
# as a register; a history of less than a block.
_SHAPES = {
  'tiles': (2, 9, 1100, 8),
  'wide': (1, 1, 600, 128),
  'short': (2, 2, 11, 4),
}
_KERNELS = {
  'tpu': functools.partial(tpu.search, sizes=_SIZES, interpret=True),
  'gpu': functools.partial(gpu.search, interpret=True),
}


@functools.cache
def _compiled(kernel):
  return jax.jit(_KERNELS[kernel], static_argnames='k')


def _search(kernel, queries, keys, bias, visible, scale=None, k=_K):
  """Returns what `find` would, from the kernel."""
  bias = np.where(visible, bias, -np.inf).astype(np.float32)
  index, score = _compiled(kernel)(queries, keys, bias, scale, k=k)
  return index, score, score > -jnp.inf


def _slow(queries, keys, bias, visible, scale, k=_K):
  """Returns the behaviors and the scores kept of each row, by sorting."""
  found = {}
  for b, c in np.ndindex(queries.shape[:2]):
    scores = {}
    for i in np.flatnonzero(visible[b]):
      score = np.float64(queries[b, c]) @ np.float64(keys[b, i])
      if scale is not None:
        score *= scale[b, i]
      score += bias[b, i]
      scores[int(i)] = np.inf if np.isnan(score) else score
    best = reference.top_k(scores, k)
    found[b, c] = best, [scores[i] for i in best]
  return found


def _draw(shape, seed, distinct, share, dtype=np.float32):
  """Returns operands whose scores are whole numbers, hence exact."""
  b, c, length, d = shape
  rng = np.random.default_rng(seed)
  queries = rng.integers(-distinct, distinct + 1, (b, c, d)).astype(np.float32)
  keys = rng.integers(-distinct, distinct + 1, (b, length, d)).astype(dtype)
  bias = rng.integers(-distinct, distinct + 1, (b, length)).astype(np.float32)
  return queries, keys, bias, rng.random((b, length)) < share


class KernelsTest(parameterized.TestCase):
  def _check(self, found, expected):
    index, score, mask = map(np.asarray, found)
    assert index.dtype == np.int32 and score.dtype == np.float32
    for row, (best, scores) in expected.items():
      assert mask[row].tolist() == [i < len(best) for i in range(_K)]
      assert index[row][mask[row]].tolist() == best
      assert score[row][mask[row]].tolist() == scores
      assert (score[row][~mask[row]] == -np.inf).all()

  @parameterized.product(kernel=list(_KERNELS), shape=list(_SHAPES))
  @hypothesis.settings(max_examples=6)
  @hypothesis.given(
    seed=st.integers(0, 99),
    # 0: all scores are equal; 1: many.
    distinct=st.sampled_from([0, 1, 50]),
    share=st.sampled_from([0.0, 0.02, 0.7, 1.0]),
    nans=st.integers(0, 3),
  )
  def test_equals_sorting(self, kernel, shape, seed, distinct, share, nans):
    operands = _draw(_SHAPES[shape], seed, distinct, share)
    operands[1].reshape(-1)[seed : seed + nans] = np.nan
    self._check(_search(kernel, *operands), _slow(*operands, None))

  @parameterized.parameters(*_KERNELS)
  def test_a_list_that_holds_all_of_the_best(self, kernel):
    shape = _SHAPES['tiles']
    width = _SIZES.width
    rows = shape[0] * shape[1]
    # Without this the lists are deep enough at once.
    assert lanes.depth(_K, shape[2], rows, width) < lanes.full_depth(
      _K, shape[2], width
    )
    queries, keys, bias, visible = _draw(shape, 0, 1, 1.0)
    bias[:, 5::width] += 100.0
    operands = queries, keys, bias, visible
    self._check(_search(kernel, *operands), _slow(*operands, None))

  @parameterized.product(
    kernel=list(_KERNELS), dtype=[jnp.int8, jnp.bfloat16], wide=[False, True]
  )
  def test_narrow_keys(self, kernel, dtype, wide):
    shape = _SHAPES['wide' if wide else 'short']
    queries, keys, bias, visible = _draw(shape, 1, 3, 0.8, dtype)
    scale = None
    if dtype == jnp.int8:
      scale = np.random.default_rng(2).choice(
        np.array([0.25, 0.5, 2.0], np.float32), bias.shape
      )
    else:
      queries = queries.astype(dtype)
    operands = queries, keys, bias, visible, scale
    self._check(_search(kernel, *operands), _slow(*operands))

  @parameterized.parameters(*_KERNELS)
  def test_real_numbers(self, kernel):
    rng = np.random.default_rng(3)
    b, c, length, d = _SHAPES['tiles']
    operands = [
      rng.normal(size=size).astype(np.float32)
      for size in ((b, c, d), (b, length, d), (b, length))
    ]
    visible = rng.random((b, length)) < 0.9
    index, score, mask = _search(kernel, *operands, visible)
    assert mask.all()
    for row, (best, scores) in _slow(*operands, visible, None).items():
      # Sums of eight products of about 1, in another order.
      np.testing.assert_allclose(score[row], scores, atol=1e-5)
      assert index[row].tolist() == best


def _on_device(*arguments):
  return tuple(map(jnp.array, _draw(*arguments)))


class FindTest(parameterized.TestCase):
  def test_the_platforms_own_and_the_plain_form_agree_with_sorting(self):
    operands = _on_device(_SHAPES['short'], 4, 1, 0.7)
    check = KernelsTest()._check
    expected = _slow(*map(np.asarray, operands), None)
    check(jax.jit(kernels.find, static_argnums=4)(*operands, _K), expected)
    check(kernels.find(*operands, _K, backend='plain'), expected)
    queries, keys, bias, visible = operands
    shared = jnp.broadcast_to(bias[:1], bias.shape)
    check(
      kernels.find(queries, keys, bias[0], visible, _K),
      _slow(*map(np.asarray, (queries, keys, shared, visible)), None),
    )

  def test_no_gradient_flows(self):
    queries, keys, bias, visible = _on_device(_SHAPES['short'], 5, 2, 1.0)

    def total(queries, keys, bias):
      return kernels.find(queries, keys, bias, visible, _K)[1].sum()

    for gradient in jax.grad(total, (0, 1, 2))(queries, keys, bias):
      assert not gradient.any()

  def test_bad_arguments_are_refused(self):
    operands = _on_device(_SHAPES['short'], 6, 1, 1.0)
    with self.assertRaisesRegex(ValueError, 'top_k=12.*history length, 11'):
      kernels.find(*operands, 12)
    with self.assertRaisesRegex(
      ValueError, "'cpu': expected one of plain, tpu"
    ):
      kernels.find(*operands, _K, backend='cpu')


class LoweringTest(parameterized.TestCase):
  """Not run: without the device, the program is all that can be seen."""

  def _operands(self, dtype):
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=np.float32)
    keys = jax.ShapeDtypeStruct((2, 50_000, 32), dtype)
    operands = [shape((2, 128, 32)), keys, shape((2, 50_000))]
    operands.append(jax.ShapeDtypeStruct((2, 50_000), np.bool_))
    scale = shape((2, 50_000)) if dtype == jnp.int8 else None
    return (*operands, 20, scale)

  @parameterized.product(
    dtype=(jnp.float32, jnp.bfloat16, jnp.int8), float64_is_on=(False, True)
  )
  def test_tpu_takes_the_kernel_unasked(self, dtype, float64_is_on):
    find = jax.jit(kernels.find, static_argnums=4)
    with jax.enable_x64(float64_is_on):
      traced = find.trace(*self._operands(dtype))
      text = traced.lower(lowering_platforms=('tpu',)).as_text()
    assert 'tpu_custom_call' in text and 'top_k' not in text.replace(
      'search_top_k', ''
    )

  @parameterized.parameters(jnp.float32, jnp.bfloat16, jnp.int8)
  def test_gpu_takes_it_if_asked(self, dtype):
    for backend, is_there in ((None, False), ('gpu', True)):
      find = functools.partial(kernels.find, backend=backend)
      traced = jax.jit(find, static_argnums=4).trace(*self._operands(dtype))
      try:
        lowered = traced.lower(lowering_platforms=('cuda',))
      except (RuntimeError, ValueError) as error:
        # jax 0.12 lowers Triton only where there is a GPU.
        if 'GPU' not in str(error):
          raise
        self.skipTest(str(error).splitlines()[0])
      assert ('triton' in lowered.as_text()) == is_there


if __name__ == '__main__':
  absltest.main()
