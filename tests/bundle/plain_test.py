"""The model that `bench serve` has beside a bundle gives the same numbers."""

import numpy as np
import pytest

from dare_jax.bench.serving import plain
from tests.bundle import served


def test_the_plain_model_gives_the_logits_of_the_bundle(root, opened):
  pytest.importorskip('torch')
  other = plain.PlainBundle(str(root / 'bundle'))
  rng = np.random.default_rng(0)
  for length in (3, 20, 31):
    past, some = (served.ids(opened, served.raw(rng, n)) for n in (length, 9))
    (expected,) = opened.score([past], [some], explain=True)
    (found,) = other.score([other.encode(past)], [some], explain=True)
    np.testing.assert_allclose(found.logit, expected.logit, atol=1e-5)
    np.testing.assert_allclose(
      found.weight.sum(1), expected.weight.sum(1), rtol=1e-5
    )
