"""Exports a trained run as a bundle, which serves with JAX and NumPy alone.

    python -m dare_jax.export --workdir=DIR --output=BUNDLE
                              [--checkpoint=best|last|STEP]
                              [--tables=float32|bfloat16|int8]
                              [--shapes=1x32,1x128,1x512,16x32] [--overwrite]

Writes BUNDLE/manifest.json, README.md, tables, programs and ids. The bundle is
written beside its place, opened again and compared with the run, and only then
moved there.
"""

from __future__ import annotations

import importlib.util

from absl import flags

from dare_jax import cli
from dare_jax import errors


def main() -> None:
  """Exports as the flags say, and prints what was written."""
  workdir, output = _WORKDIR.value, _OUTPUT.value
  if not workdir:
    raise errors.UsageError('--workdir is missing: the folder of a run.')
  if not output:
    raise errors.UsageError('--output is missing: the folder of the bundle.')
  if importlib.util.find_spec('flatbuffers') is None:  # JAX asks late.
    raise errors.UsageError(
      'export needs flatbuffers, which is not installed:'
      f' {errors.install("export")}.'
    )
  from dare_jax.bundle.making import exporting

  options = exporting.Options(
    checkpoint=_CHECKPOINT.value,
    tables=_TABLES.value,
    shapes=_SHAPES.value,
    overwrite=_OVERWRITE.value,
  )
  print(exporting.export(workdir, output, options))


if __name__ == '__main__':
  _WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a run.')
  _OUTPUT = flags.DEFINE_string('output', None, 'Folder of the bundle.')
  _CHECKPOINT = flags.DEFINE_string(
    'checkpoint', 'best', 'Checkpoint: best, last or STEP.'
  )
  _TABLES = flags.DEFINE_string(
    'tables', 'float32', 'How tables are kept: float32, bfloat16 or int8.'
  )
  _SHAPES = flags.DEFINE_string(
    'shapes',
    '1x32,1x128,1x512,16x32',
    'What is compiled ahead: USERSxCANDIDATES, or USERSxCANDIDATESxBEHAVIORS,'
    ' between commas. Empty: only programs for any shape, which search slower.',
  )
  _OVERWRITE = flags.DEFINE_bool(
    'overwrite', False, 'Replace a bundle that is there.'
  )
  cli.run(main)
