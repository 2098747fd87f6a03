"""The encoder: which rows each use reads, and what it makes at init."""

from __future__ import annotations

from typing import Any

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import embeddings
from dare_jax.embeddings import plans

_FIELDS = ('item', 'category', 'brand')


def _encoder(plan: str) -> embeddings.FeatureEncoder:
  return embeddings.FeatureEncoder(
    content=tuple(
      embeddings.Feature(field, 30 + rows, 2 + rows, 2 + rows)
      for rows, field in enumerate(_FIELDS)
    ),
    time=embeddings.Feature('time', 12, 3, 3),
    plan=embeddings.PLANS[plan],
    init_std={'attention': 0.01, 'representation': 1.0},
  )


def _ids() -> dict[str, jax.Array]:
  rng = np.random.default_rng(0)
  return {f: jnp.array(rng.integers(0, 30, (4, 5))) for f in _FIELDS}


def _projected(
  plan: str, use: tuple[str, str], fields: dict[str, np.ndarray], params: Any
) -> tuple[np.ndarray, np.ndarray]:
  """Content and time vectors after a plan's maps."""
  shape = embeddings.PLANS[plan].projection
  suffix = shape and shape.name(*use)
  if shape is not None and shape.per_field:
    for field, value in fields.items():
      layers = params[f'projection_{field}_{suffix}']
      value = value @ layers['Dense_0']['kernel']
      if shape.hidden:
        value = np.maximum(value, 0) @ layers['Dense_1']['kernel']
      fields[field] = value
  time = fields.pop('time')
  content = np.concatenate(list(fields.values()), axis=-1)
  if shape is not None and not shape.per_field:
    joint = params[f'joint_projection_{suffix}']
    kernel = np.asarray(joint['kernel'])
    content = content @ kernel[:-3]
    time = time @ kernel[-3:] + np.asarray(joint['bias'])
  return content, time


class EncoderTest(parameterized.TestCase):
  @parameterized.named_parameters(*((name, name) for name in embeddings.PLANS))
  def test_each_use_reads_its_table(self, plan):
    encoder, ids = _encoder(plan), _ids()
    uses = [(role, side) for role in plans.ROLES for side in plans.SIDES]

    def every_use(module):
      return [
        (module.lookup(*use, ids), module.time_rows(*use, jnp.arange(5)))
        for use in uses
      ]

    found, variables = encoder.init_with_output(
      jax.random.key(0), method=every_use
    )
    rows = variables['tables']
    suffixes = embeddings.PLANS[plan].suffixes
    assert set(rows) == {
      f'{field}_{suffix}' for field in (*_FIELDS, 'time') for suffix in suffixes
    }
    for use, (content, time) in zip(uses, found, strict=True):

      def read(field, index, use=use):
        suffix = embeddings.PLANS[plan].table_of[use]
        return np.asarray(rows[f'{field}_{suffix}'])[np.asarray(index)]

      fields = {f: read(f, ids[f]) for f in _FIELDS}
      fields['time'] = read('time', np.arange(5))
      expected = _projected(plan, use, fields, variables.get('params', {}))
      for given, wanted in zip((content, time), expected, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-6)

  def test_init_std_by_role(self):
    encoder = _encoder('decoupled')
    variables = encoder.init(
      jax.random.key(0), 'attention', 'target', _ids(), method='lookup'
    )
    for name, table in variables['tables'].items():
      std = 0.01 if name.endswith('attention') else 1.0
      # 36 draws or more: within a half.
      np.testing.assert_allclose(table.std(), std, rtol=0.5)
    stds = [np.asarray(t).ravel()[:4] for t in variables['tables'].values()]
    assert len({tuple(s.tolist()) for s in stds}) == len(stds)

  def test_how_projections_begin(self):
    square = {
      name: np.asarray(init(jax.random.key(0), (64, 64)))
      for name, init in embeddings.KERNEL_INITS.items()
    }
    # 4,096 draws: their deviation is known to about a hundredth.
    for name, std in (('official', 0.01), ('lecun', 64**-0.5)):
      np.testing.assert_allclose(square[name].std(), std, rtol=0.05)
    np.testing.assert_array_equal(square['identity'], np.eye(64))
    kernel = square['orthogonal']
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(64), atol=1e-5)
    assert abs(kernel[0, 0]) < 0.9

  def test_any_number_of_rows(self):
    encoder = _encoder('shared')
    small = {
      f'{f}_shared': jnp.full((1, 2 + i), float(i))
      for i, f in enumerate((*_FIELDS, 'time'))
    }
    ids = {f: jnp.zeros((3,), jnp.int32) for f in _FIELDS}
    small['time_shared'] = jnp.zeros((1, 3))
    found = encoder.apply(
      {'tables': small}, 'attention', 'target', ids, method='lookup'
    )
    np.testing.assert_array_equal(found, [[0, 0, 1, 1, 1, 2, 2, 2, 2]] * 3)


if __name__ == '__main__':
  absltest.main()
