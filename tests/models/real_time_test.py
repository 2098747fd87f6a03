"""Real time: against the reference, and what makes it exact."""

from __future__ import annotations

from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax import models
from dare_jax.search import gaps
from tests.models import examples
from tests.models import real_time_parts
from tests.models import reference_check

_VOCAB = {'item': 6, 'category': 4}
_ALL = ('gap', 'weekday', 'hour')
_FIELDS = ('item', 'category')
_CASES = (
  ('dare', 'dare', {'match_fields': _FIELDS}),
  ('gap_alone', 'dare', {'real_time': ('gap',)}),
  ('moment_alone', 'dare', {'real_time': ('hour', 'weekday')}),
  ('projected_concat', 'dare', {'plan': 'projected_concat'}),
  ('din', 'din', {}),
  ('twin_hard', 'twin_hard', {}),
  ('sim_soft', 'sim_soft', {}),
  ('eta', 'eta', {'match_fields': ('item',)}),
  ('twin_v2', 'twin_v2', {'num_clusters': 3}),
  ('everything', 'din_full', {}),
  ('all_with_positions', 'dare', {'search': 'all'}),
  ('sdim', 'sdim', {'hash_bits': 12}),
  ('only_product', 'dare', {'only_product': True, 'use_time': False}),
)
_DAY = 86_400


def with_times(batch: Any, seed: int = 0) -> Any:
  """Returns a batch with ordered times, some equal, gaps of all sizes."""
  rng = np.random.default_rng(seed)
  windows, length = batch.history.mask.shape
  span = 2.0 ** rng.uniform(0, 28, (windows, length))
  step = np.where(rng.random(span.shape) < 0.3, 0, span).astype(np.int64)
  time = step.cumsum(1) - step.sum(1, keepdims=True) + 3 * _DAY
  time[1] -= 2**31  # Farther back than 31 bits tell.
  time[2, :] = rng.integers(4, size=length).cumsum() * 7 * _DAY - _DAY
  end = np.asarray(batch.end)
  last = np.take_along_axis(time, np.maximum(end - 1, 0), axis=1)
  late = np.where(rng.random(end.shape) < 0.5, 0, rng.integers(0, 10**6))
  limits = np.iinfo(np.int32)
  clip = lambda x: jnp.asarray(np.clip(x, limits.min, limits.max), jnp.int32)
  history = batch.history.replace(time=clip(time))
  return batch.replace(history=history, now=clip(last + late))


def _example(name: str, **options: Any) -> Any:
  model = examples.build(
    name, **({'vocab_sizes': _VOCAB, 'real_time': _ALL} | options)
  )
  batch = examples.make_batch(5, vocab=_VOCAB)
  if 'num_clusters' in options:
    batch = examples.with_clusters(batch, options['num_clusters'])
  # One moment sees nothing.
  batch = with_times(batch.replace(end=batch.end.at[0, 0].set(0)))
  return model, examples.make_variables(model, batch), batch


class RealTimeTest(parameterized.TestCase):
  @parameterized.named_parameters(*_CASES)
  @pytest.mark.quick_cases('dare', 'sdim', 'twin_v2')
  def test_equals_the_reference(self, name, options):
    example = _example(name, **options)
    found = reference_check.assert_equal(*example, atol=2e-6)
    reference_check.assert_same_kept(*found)

  @parameterized.named_parameters(
    case for case in _CASES if case[0] in ('dare', 'din', 'twin_v2')
  )
  @pytest.mark.quick_cases('dare')
  def test_gradients_agree_with_the_reference_s_differences(
    self, name, options
  ):
    model, variables, batch = _example(name, **options)
    with jax.enable_x64(True):
      variables, batch = examples.to_float64((variables, batch))
      grads = examples.measure(model, variables, batch).grads['params']
      own = grads['real_time']
      for name in [n for n in own if not n.startswith('moment')]:
        slopes = np.asarray(own[name])
        order = np.argsort(-abs(slopes).ravel())
        for flat in (order[0], order[1], order[-1]):
          place = np.unravel_index(flat, slopes.shape)
          slope = reference_check.slope(
            model, variables, batch, ('real_time', name), place
          )
          np.testing.assert_allclose(slopes[place], slope, rtol=1e-5, atol=1e-8)

  def test_a_fresh_model_scores_by_positions_and_content_alone(self):
    model, _, batch = _example('dare')
    variables = examples.init(model, batch)
    plain = examples.build(vocab_sizes=_VOCAB)
    without = {n: x for n, x in variables.items() if n == 'tables'}
    found = examples.evaluate(model, variables, batch)
    params = examples.init(plain, batch)
    expected = examples.evaluate(plain, {**params, **without}, batch)
    np.testing.assert_array_equal(
      found.output.search.scores, expected.output.search.scores
    )
    np.testing.assert_array_equal(found.interest, expected.interest)

  @pytest.mark.slow
  def test_a_few_windows_at_a_time_change_nothing(self):
    example = _example('dare', match_fields=_FIELDS)
    reference_check.assert_same_by_windows(*example)

  def test_the_origin_of_a_window_is_no_matter(self):
    model, variables, batch = _example('dare', match_fields=_FIELDS)
    batch = batch.replace(
      history=batch.history.replace(time=batch.history.time // 2)
    )
    batch = batch.replace(now=batch.now // 2)
    moved = batch.replace(
      history=batch.history.replace(time=batch.history.time - 50 * 7 * _DAY),
      now=batch.now - 50 * 7 * _DAY,
    )
    np.testing.assert_array_equal(
      examples.predict(model, variables, moved),
      examples.predict(model, variables, batch),
    )

  def test_padding_s_time_is_no_matter(self):
    model, variables, batch = _example('dare', match_fields=_FIELDS)
    time = jnp.where(batch.history.mask, batch.history.time, 77)
    other = batch.replace(history=batch.history.replace(time=time))
    np.testing.assert_array_equal(
      examples.predict(model, variables, other),
      examples.predict(model, variables, batch),
    )

  def test_a_batch_without_times_is_refused(self):
    model, variables, batch = _example('dare')
    with pytest.raises(ValueError, match='now is missing'):
      model.apply(variables, batch.replace(now=None))
    history = batch.history.replace(time=None)
    with pytest.raises(ValueError, match='history.time is missing'):
      model.apply(variables, batch.replace(history=history))

  def test_unknown_and_repeated_parts_are_refused(self):
    with pytest.raises(ValueError, match="did you mean 'weekday'"):
      models.build('dare', vocab_sizes=_VOCAB, real_time=('weekdy',))
    with pytest.raises(ValueError, match='each part once'):
      models.build('dare', vocab_sizes=_VOCAB, real_time=('gap', 'gap'))


class GapsTest(parameterized.TestCase):
  def test_kinds_are_the_reference_s(self):
    rng = np.random.default_rng(0)
    edges = [2**p + d for p in range(2, 31) for d in (-1, 0, 1)]
    edges += [3 * 2**p + d for p in range(30) for d in (-1, 0, 1)]
    days = [_DAY // 2 * n + d for n in range(60) for d in (-1, 0, 1)]
    drawn = (2.0 ** rng.uniform(0, 31, 300)).astype(int)
    every = [0, 1, 2, 3, 2**31 - 1, *edges, *days, *drawn.tolist()]
    every = np.array([min(max(x, 0), 2**31 - 1) for x in every])
    found = np.asarray(gaps.kind(jnp.asarray(every, jnp.int32)))
    expected = [
      real_time_parts.range_of(x) * gaps.PHASES + real_time_parts.phase(x)
      for x in every
    ]
    np.testing.assert_array_equal(found, expected)
    assert found.max() < gaps.KINDS

  def test_gaps_beyond_31_bits(self):
    low, high = -(2**31), 2**31 - 1
    every = np.array([low, low + 1, -5, 0, 7, high - 1, high])
    found = gaps.between(
      jnp.asarray(every[None], jnp.int32), jnp.asarray(every[None], jnp.int32)
    )
    expected = [
      [real_time_parts.between(now, then) for then in every] for now in every
    ]
    np.testing.assert_array_equal(found[0], expected)


if __name__ == '__main__':
  absltest.main()
