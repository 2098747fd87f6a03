"""Batches that do not fit: one line that says what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dare_jax.models import batch_check
from tests.models import examples


def _without(mapping, name):
  return {key: value for key, value in mapping.items() if key != name}


def _ids(part, change):
  return part.replace(ids=change(part.ids))


_CASES = {
  'history.ids lacks .category., which the model reads; it has item': (
    lambda b: b.replace(
      history=_ids(b.history, lambda x: _without(x, 'category'))
    )
  ),
  'targets.ids lacks .item.': (
    lambda b: b.replace(targets=_ids(b.targets, lambda x: _without(x, 'item')))
  ),
  r'end \(4,\): expected \[b m\]': lambda b: b.replace(end=b.end[:, 0]),
  r'end \(1, 2\): expected 4 windows': lambda b: b.replace(end=b.end[:1]),
  r'targets.weight \(4, 1, 3\): expected 4 windows .* 2 moments': (
    lambda b: b.replace(targets=jax.tree.map(lambda x: x[:, :1], b.targets))
  ),
  r'targets.label \(4, 2, 1\): expected \(4, 2, 3\)': (
    lambda b: b.replace(
      targets=b.targets.replace(label=b.targets.label[..., :1])
    )
  ),
  r'start \(1, 2\): expected \(4, 2\)': (
    lambda b: b.replace(start=jnp.zeros((1, 2), int))
  ),
  r"history.ids\['item'\] \(1, 6\): expected \(4, 6\)": (
    lambda b: b.replace(
      history=_ids(b.history, lambda x: x | {'item': x['item'][:1]})
    )
  ),
}


@pytest.mark.parametrize('told', _CASES)
def test_what_does_not_fit_is_refused(told):
  model = examples.build('dare')
  batch = examples.make_batch(windows=4, moments=2, candidates=3, length=6)
  features = model.config.content, model.config.context
  batch_check.check(batch, *features)
  batch_check.check(jax.tree.map(np.asarray, batch), *features)
  with pytest.raises(ValueError, match=told):
    batch_check.check(_CASES[told](batch), *features)
  with pytest.raises(ValueError, match='batch: '):
    model.init(jax.random.key(0), _CASES[told](batch))
