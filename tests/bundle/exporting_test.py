"""A bundle is whole in its place, or what was there still is."""

import dataclasses
import os
import shutil

import pytest

from dare_jax import bundle
from dare_jax import errors
from dare_jax import models
from dare_jax.bundle.making import exporting
from dare_jax.bundle.making import placing
from dare_jax.bundle.making import shape_list
from dare_jax.bundle.making import verification
from dare_jax.bundle.making import writing
from dare_jax.process import locks


def _export(root, output, **options):
  return exporting.export(
    root / 'run', output, exporting.Options(shapes='', **options)
  )


@pytest.mark.slow
def test_tells_what_was_written_and_replaces_a_bundle(
  root, tmp_path, monkeypatch
):
  shutil.copytree(root / 'bundle', tmp_path / 'b')
  first = bundle.open(tmp_path / 'b').version
  with pytest.raises(errors.UsageError, match='give --overwrite'):
    _export(root, tmp_path / 'b')

  def fails(*args):
    raise errors.UsageError('scores differ')

  with monkeypatch.context() as patched:
    patched.setattr(verification, 'verify', fails)
    with pytest.raises(errors.UsageError, match='scores differ'):
      _export(root, tmp_path / 'b', tables='int8', overwrite=True)
  assert bundle.open(tmp_path / 'b').version == first
  assert os.listdir(tmp_path) == ['b']
  options = {'tables': 'int8', 'checkpoint': 'last'}
  told = _export(root, tmp_path / 'b', overwrite=True, **options)
  assert 'lowered for cuda and tpu' in told
  assert '8 test moments x 24 candidates' in told
  assert 'by int8 tables logits change by up to' in told
  made = bundle.open(tmp_path / 'b')
  assert made.version != first
  assert '--checkpoint=last --tables=int8' in made.manifest['command']
  assert os.listdir(tmp_path) == ['b']


@pytest.mark.slow
def test_other_things_are_left_alone(root, tmp_path):
  (tmp_path / 'file').write_text('mine')
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'folder' / 'mine').write_text('mine')
  for name, told in (('file', 'a file is there'), ('folder', 'other things')):
    with pytest.raises(errors.UsageError, match=told):
      _export(root, tmp_path / name, overwrite=True)


def test_two_writers_do_not_mix(tmp_path):
  output = tmp_path / 'bundle'
  lock = locks.Lock(tmp_path / '.bundle.lock')
  with pytest.raises(errors.UsageError, match='is exporting there'):
    with placing.beside(output, overwrite=False):
      pass
  lock.release()
  with placing.beside(output, overwrite=False) as folder:
    (folder / 'whole').write_text('')
    assert not output.exists()
  assert os.listdir(tmp_path) == ['bundle']


@pytest.mark.slow
@pytest.mark.parametrize(
  ('options', 'told'),
  [
    ({'tables': 'int4'}, '--tables=int4: expected one of float32, bfloat16'),
    ({'checkpoint': 'worst'}, '--checkpoint=worst: expected best, last'),
  ],
)
def test_wrong_options_are_refused(root, tmp_path, options, told):
  with pytest.raises(errors.UsageError, match=told):
    _export(root, tmp_path / 'b', **options)


def test_shapes_are_read():
  of = lambda text: [
    str(s) for s in shape_list.parse(text, history_length=1500, top_k=20)
  ]
  assert of('1x32') == ['1x32x256', '1x32x1024', '1x32x1504']
  assert of('1x32x300, 4x8x1500') == ['1x32x304', '4x8x1504']
  assert of('') == []
  for text, told in (
    ('1', 'expected USERSxCANDIDATES'),
    ('0x5', 'expected USERSxCANDIDATES'),
    ('1x5x1600', 'sees 1500 behaviors'),
  ):
    with pytest.raises(errors.UsageError, match=told):
      of(text)


def test_a_search_over_clusters_is_refused(run, tmp_path):
  config = dataclasses.replace(run.model.config, search='clusters')
  clustered = dataclasses.replace(run, model=models.Ranker(config))
  source = writing.Source('b', 'again', clustered, {})
  with pytest.raises(errors.UsageError, match='model.search=clusters'):
    writing.write(source, tmp_path, ())
  assert not os.listdir(tmp_path)
