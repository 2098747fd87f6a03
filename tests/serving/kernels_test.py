"""The kernels, as plain operations on the CPU, against sorting; lowering."""

from __future__ import annotations

import dataclasses
import functools

from absl.testing import absltest
from absl.testing import parameterized
import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.serving import products
from dare_jax.serving import user_state
from dare_jax.serving.kernels import dispatch
from dare_jax.serving.kernels import gpu
from dare_jax.serving.kernels import tpu
from tests.models import reference

_K = 8
_SIZES = tpu.Sizes(block=512, tile=8, held=2)
# b, c, l, d: a part of a block at the end, two tiles of targets; rows as wide
# as a register; a history of less than a block, and an odd number of dims.
_SHAPES = {
  'tiles': (2, 9, 1100, 8),
  'wide': (1, 1, 600, 128),
  'short': (2, 2, 11, 3),
}
_KERNELS = {
  'tpu': functools.partial(tpu.search, sizes=_SIZES, interpret=True),
  'gpu': functools.partial(gpu.search, interpret=True),
}
_narrow = jax.jit(products.narrow, static_argnames='precision')
_build = jax.jit(user_state.build, static_argnames='precision')
_search = jax.jit(user_state.search, static_argnames=('k', 'backend'))


@functools.cache
def _compiled(kernel):
  best = functools.partial(dispatch.best, _KERNELS[kernel])
  return jax.jit(best, static_argnames='k')


@dataclasses.dataclass
class _Case:
  """Rings whose scores are whole numbers, hence exact."""

  query: np.ndarray
  keys: np.ndarray
  bias: np.ndarray
  newest: np.ndarray
  scale: np.ndarray | None = None

  @classmethod
  def draw(cls, shape, seed, distinct, share):
    b, c, length, d = shape
    rng = np.random.default_rng(seed)
    whole = lambda *size: rng.integers(-distinct, distinct + 1, size)
    bias = np.where(rng.random((b, length)) < share, whole(b, length), -np.inf)
    return cls(
      whole(b, c, d).astype(np.float32),
      whole(b, length, d).astype(np.float32),
      bias.astype(np.float32),
      rng.integers(0, length, b).astype(np.int32),
    )

  def found(self, kernel, precision='float32'):
    columns = np.swapaxes(self.keys, 1, 2)
    if self.scale is not None:
      columns, scale = columns.astype('int8'), self.scale
    else:
      columns, scale = _narrow(columns, precision)
    return _compiled(kernel)(
      self.query, columns, scale, self.bias, self.newest, k=_K
    )

  def expected(self):
    """Yields each row, and its best slots and their scores, by sorting."""
    length = self.keys.shape[1]
    for b, c in np.ndindex(self.query.shape[:2]):
      by_age = {}
      for place in range(length):
        slot = (self.newest[b] + 1 + place) % length
        if self.bias[b, slot] == -np.inf:
          continue
        score = np.float64(self.query[b, c]) @ np.float64(self.keys[b, slot])
        if self.scale is not None:
          score *= self.scale[b, slot]
        score += self.bias[b, slot]
        by_age[place] = np.inf if np.isnan(score) else score
      best = reference.top_k(by_age, _K)
      slots = [(int(self.newest[b]) + 1 + place) % length for place in best]
      yield (b, c), slots, [by_age[place] for place in best]


def _check(found, case, atol=0.0):
  slots, scores = map(np.asarray, found)
  assert slots.dtype == np.int32 and scores.dtype == np.float32
  for row, expected, values in case.expected():
    kept = len(expected)
    assert slots[row][:kept].tolist() == expected
    np.testing.assert_allclose(scores[row][:kept], values, rtol=0, atol=atol)
    assert (scores[row][kept:] == -np.inf).all()


class KernelsTest(parameterized.TestCase):
  @parameterized.product(kernel=list(_KERNELS), shape=list(_SHAPES))
  @hypothesis.settings(max_examples=6)
  @hypothesis.given(
    seed=st.integers(0, 99),
    # 0: all scores are equal; 1: many.
    distinct=st.sampled_from([0, 1, 50]),
    share=st.sampled_from([0.0, 0.02, 0.7, 1.0]),
    nans=st.integers(0, 3),
    # Where a ring begins: anywhere; with a block, or at its end.
    newest=st.sampled_from([None, -1, 63, 255, 511, 512]),
  )
  def test_equals_sorting(
    self, kernel, shape, seed, distinct, share, nans, newest
  ):
    case = _Case.draw(_SHAPES[shape], seed, distinct, share)
    case.keys.reshape(-1)[seed : seed + nans] = np.nan
    if newest is not None:
      case.newest[:] = newest % case.keys.shape[1]
    _check(case.found(kernel), case)

  @parameterized.parameters(*_KERNELS)
  def test_all_of_the_best_lie_a_register_apart(self, kernel):
    # In one chunk of each block, of which the kernel for TPU shows one first.
    case = _Case.draw(_SHAPES['tiles'], 0, 1, 1.0)
    case.bias[:, 5::128] += 100.0
    _check(case.found(kernel), case)

  @parameterized.parameters(*_KERNELS)
  def test_groups_of_which_each_holds_one_of_the_best(self, kernel):
    case = _Case.draw(_SHAPES['tiles'], 0, 0, 1.0)
    case.bias[:, 3::16] += 1.0
    # Of the group of the most recent, the ring's oldest is the best.
    case.newest[:] = 289
    _check(case.found(kernel), case)

  @parameterized.product(
    kernel=list(_KERNELS),
    precision=['bfloat16', 'int8'],
    shape=['wide', 'short'],
  )
  @pytest.mark.quick_cases('0', '3', '5', '6')
  def test_narrow_keys(self, kernel, precision, shape):
    case = _Case.draw(_SHAPES[shape], 1, 3, 0.8)
    if precision == 'int8':
      case.scale = np.random.default_rng(2).choice(
        np.array([0.25, 0.5, 2.0], np.float32), case.bias.shape
      )
    _check(case.found(kernel, precision), case)

  @parameterized.parameters(*_KERNELS)
  def test_real_numbers(self, kernel):
    case = _Case.draw(_SHAPES['tiles'], 3, 1, 0.9)
    rng = np.random.default_rng(3)
    for name in ('query', 'keys'):
      shape = getattr(case, name).shape
      setattr(case, name, rng.normal(size=shape).astype(np.float32))
    # Sums of eight products of about 1, in another order.
    _check(case.found(kernel), case, atol=1e-5)


def _state(precision='float32', length=600):
  """Users' rings that begin anywhere, and what to search them with."""
  rng = np.random.default_rng(5)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  mask = np.ones((3, length), bool)
  state = _build(normal(3, length, 6), mask, precision)
  state = dataclasses.replace(
    state,
    newest=np.array([5, 300, 607], np.int32),
    count=np.array([0, 100, length], np.int32),
  )
  return state, normal(3, 2, 6), normal(state.capacity + 1)


class BackendTest(parameterized.TestCase):
  @parameterized.product(
    precision=user_state.PRECISIONS, backend=[None, *dispatch.KERNELS]
  )
  @pytest.mark.quick_cases('0', '2')
  def test_a_state_is_searched_alike_by_all(self, precision, backend):
    operands = _state(precision)
    plain = jax.device_get(_search(*operands, _K, backend='plain'))
    found = jax.device_get(_search(*operands, _K, backend=backend))
    np.testing.assert_array_equal(found.mask, plain.mask)
    assert plain.mask.sum(axis=-1).tolist() == [
      [[0, 0]],
      [[8, 8]],
      [[8, 8]],
    ]
    for name in ('indices', 'distance'):
      pair = [np.where(x.mask, getattr(x, name), 0) for x in (found, plain)]
      np.testing.assert_array_equal(*pair)
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-5)

  def test_more_is_kept_than_a_register_has_lanes(self):
    operands = _state()
    plain = jax.device_get(_search(*operands, 200, backend='plain'))
    found = jax.device_get(_search(*operands, 200, backend='tpu'))
    np.testing.assert_array_equal(found.mask, plain.mask)
    distances = [np.where(x.mask, x.distance, 0) for x in (found, plain)]
    np.testing.assert_array_equal(*distances)

  def test_no_gradient_flows_through_a_kernel(self):
    state, query, bias = _state()

    def total(query, bias):
      found = user_state.search(state, query, bias, _K, backend='tpu')
      return jnp.where(found.mask, found.scores, 0).sum()

    for gradient in jax.jit(jax.grad(total, (0, 1)))(query, bias):
      assert not np.any(gradient)

  @parameterized.parameters(*user_state.BACKENDS)
  def test_more_than_the_capacity_is_refused(self, backend):
    state, query, bias = _state()
    with self.assertRaisesRegex(ValueError, 'top_k=609: .*history length, 608'):
      _search(state, query, bias, 609, backend=backend)

  def test_an_unknown_backend_is_refused(self):
    expected = "'cpu': expected one of plain, tpu, gpu"
    with self.assertRaisesRegex(ValueError, expected):
      _search(*_state(), _K, backend='cpu')


class LoweringTest(parameterized.TestCase):
  """Not run: without the device, the program is all that can be seen."""

  def _lowered(self, precision, platform, backend=None):
    build = functools.partial(user_state.build, precision=precision)
    shape = jax.ShapeDtypeStruct
    mask = shape((2, 50_000), bool)
    state = jax.eval_shape(build, shape((2, 50_000, 32), np.float32), mask)
    query = shape((2, 128, 32), np.float32)
    bias = shape((state.capacity + 1,), np.float32)
    find = functools.partial(user_state.search, k=20, backend=backend)
    traced = jax.jit(find).trace(state, query, bias)
    return traced.lower(lowering_platforms=(platform,)).as_text()

  @parameterized.parameters(*user_state.PRECISIONS)
  @pytest.mark.quick_cases('0')
  def test_tpu_takes_the_kernel_unasked(self, precision):
    self._check_tpu_takes_it(precision)

  @parameterized.parameters(*user_state.PRECISIONS)
  @pytest.mark.slow
  def test_tpu_takes_the_kernel_where_float64_is_on(self, precision):
    with jax.enable_x64(True):
      self._check_tpu_takes_it(precision)

  def _check_tpu_takes_it(self, precision):
    text = self._lowered(precision, 'tpu')
    assert 'tpu_custom_call' in text
    if precision == 'float32':  # Of narrow keys a few are ranked anew.
      assert 'top_k' not in text.replace('search_top_k', '')

  @parameterized.parameters(*user_state.PRECISIONS)
  @pytest.mark.slow
  def test_gpu_takes_it_if_asked(self, precision):
    for backend, is_there in ((None, False), ('gpu', True)):
      try:
        text = self._lowered(precision, 'cuda', backend)
      except (RuntimeError, ValueError) as error:
        # jax 0.12 lowers Triton only where there is a GPU.
        if 'GPU' not in str(error):
          raise
        self.skipTest(str(error).splitlines()[0])
      assert ('triton' in text) == is_there


if __name__ == '__main__':
  absltest.main()
