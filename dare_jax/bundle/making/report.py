"""What an export tells on the screen."""

from __future__ import annotations

import os
import pathlib

import jax

from dare_jax.bundle import reading
from dare_jax.bundle.making import verification


def text(
  opened: reading.Bundle,
  verified: verification.Verified,
  place: pathlib.Path,
) -> str:
  """Returns a screen about a bundle that was written.

  Args:
    opened: the bundle that was verified.
    verified: what the verification has found.
    place: the folder in which the bundle lies now.
  """
  manifest = opened.manifest
  total = sum(told['bytes'] for told in manifest['files'].values())
  tables = sum(
    manifest['files'][told['file']]['bytes']
    for told in manifest['tables'].values()
  )
  rows = ', '.join(
    f'{field} {manifest["vocab_sizes"][field]:,}' for field in manifest['ids']
  )
  lines = {
    'model': f'{opened.name}, step {manifest["step"]}: plan {manifest["plan"]},'
    f' search {manifest["search"]}, {opened.top_k} of the last'
    f' {opened.history_length} behaviors',
    'test': ', '.join(
      f'{name} {value:.4f}'
      for name, value in manifest['metrics'].get('test', {}).items()
      if name in ('auc', 'gauc', 'logloss')
    )
    or 'not known of this step',
    'tables': f'{len(manifest["tables"])}, {manifest["precision"]},'
    f' {_megabytes(tables)}; rows: {rows}',
    'programs': _programs(opened),
    'verified': _verified(verified, opened),
    'version': f'{opened.version}, {len(manifest["files"])} files,'
    f' {_megabytes(total)}',
  }
  told = [f'{name:10}{line}' for name, line in lines.items() if line]
  return '\n'.join(
    [
      f'{place}:',
      *told,
      f'To score with JAX alone, see {place / "README.md"}. To serve it:',
      f'  python -m dare_jax.serve --bundle={os.path.relpath(place)}',
    ]
  )


def _megabytes(size: int) -> str:
  return f'{size / 1e6:,.1f} MB'


def _programs(opened: reading.Bundle) -> str:
  own = jax.default_backend().replace('gpu', 'cuda')
  platforms = opened.manifest['programs'][0]['platforms']
  others = [name for name in platforms if name != own]
  shapes = ', '.join(map(str, opened.shapes)) or 'none'
  return (
    f'{len(opened.manifest["programs"])}, run on {own}, lowered for'
    f' {" and ".join(others)}; users x candidates x behaviors: {shapes}, and'
    ' any'
  )


def _verified(verified: verification.Verified, opened: reading.Bundle) -> str:
  line = (
    f'{verified.moments} test moments x {verified.candidates} candidates by'
    f' each program: logits and weights within {verified.worst:.1e} of the run'
  )
  if verified.auc is None:
    return line
  before, after = verified.auc
  return (
    f'{line} with these tables; by {opened.manifest["precision"]} tables logits'
    f' change by up to {verified.change:.2g}, AUC of test rows {before:.5f} ->'
    f' {after:.5f}'
  )
