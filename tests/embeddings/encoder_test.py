"""The encoder: which rows each use reads, and what it makes at init."""

from __future__ import annotations

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dare_jax import embeddings
from dare_jax.embeddings import tables

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


class EncoderTest(parameterized.TestCase):
  @parameterized.named_parameters(*((name, name) for name in embeddings.PLANS))
  def test_each_use_reads_its_table(self, plan):
    encoder, ids = _encoder(plan), _ids()
    uses = [(role, side) for role in tables.ROLES for side in tables.SIDES]

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
        vectors = np.asarray(rows[f'{field}_{suffix}'])[np.asarray(index)]
        if plan == 'projected':
          name = f'projection_{field}_{use[0]}_{use[1]}'
          vectors = vectors @ variables['params'][name]['kernel']
        return vectors

      expected = np.concatenate([read(f, ids[f]) for f in _FIELDS], axis=-1)
      np.testing.assert_allclose(content, expected, rtol=1e-5, atol=1e-6)
      np.testing.assert_allclose(
        time, read('time', np.arange(5)), rtol=1e-5, atol=1e-6
      )

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
