"""Another Python with another JAX opens a bundle, where there is one.

`DARE_JAX_OTHER_PYTHON` names an interpreter that has jax, numpy and
flatbuffers; `python -m tests.bundle.across` makes one.
"""

import os

import pytest

from tests.bundle import across

_OTHER = os.environ.get('DARE_JAX_OTHER_PYTHON')


@pytest.mark.skipif(_OTHER is None, reason='DARE_JAX_OTHER_PYTHON is not set')
def test_another_python_scores_the_same(root, tmp_path):
  versions = across.check_bundle(_OTHER, root / 'bundle', tmp_path)
  assert versions['jax']
