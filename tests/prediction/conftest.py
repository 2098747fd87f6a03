"""One run of a second, and the command on it, for all tests of a worker."""

import dataclasses
import functools

import pytest

from dare_jax import predict
from dare_jax.prediction import request as request_lib
from tests import tiny
from tests.prediction import cases


@pytest.fixture(scope='session')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('predict')
  tiny.write_log(root / 'log.csv')
  return root


@pytest.fixture(scope='session')
def workdir(root):
  return cases.train(root, 'dare')


@pytest.fixture(scope='session')
def expected(workdir):
  """Rows of the test split, and what evaluation gave them."""
  return cases.rows(workdir)


@pytest.fixture(scope='session')
def ask(workdir):
  """Scores an input; returns what was done."""
  loaded = functools.cache(request_lib._of_run)

  def of_run(request):
    """Compiles once for all tests."""
    same = dataclasses.replace(
      request,
      **dict.fromkeys(('input', 'output', 'columns', 'shard', 'candidates')),
      top=None,
    )
    scorer, _, data = loaded(same)
    return scorer, (scorer.own_log(),), data

  def run(source, output, stop=None, block=cases.BLOCK, **flags):
    given = {'workdir': str(workdir), **flags}
    request = predict.Request(str(source), str(output), **given)
    return predict.predict(request, stop, block)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(request_lib, '_of_run', of_run)
    yield run
