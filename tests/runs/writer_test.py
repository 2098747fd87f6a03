"""The metric file over restarts: no gap, no repeat."""

import json
import zlib

import hypothesis
from hypothesis import strategies as st
import pytest

from dare_jax import errors
from dare_jax.runs import writer


def crc_of(workdir, lines):
  path = workdir / 'metrics.jsonl'
  whole = path.read_bytes().splitlines(keepends=True) if path.exists() else []
  return zlib.crc32(b''.join(whole[:lines]))


def write(workdir, steps, step=0, lines=0):
  crc = crc_of(workdir, lines)
  made = writer.MetricsWriter(workdir, step, lines, crc)
  for number in steps:
    made.write(number, number / 10, 0.5, {'train/loss': 1 / 3})
  made.close()
  return made.lines


def steps_in(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line)['step'] for line in lines]


def test_a_line(tmp_path):
  write(tmp_path, [3])
  assert (tmp_path / 'metrics.jsonl').read_text() == (
    '{"step": 3, "epoch": 0.3, "time_s": 0.5, "train/loss": '
    + repr(1 / 3)
    + '}\n'
  )


def test_resume_drops_what_was_not_saved(tmp_path):
  assert write(tmp_path, [1, 2, 2, 3]) == 4
  assert write(tmp_path, [2, 3, 4], step=2, lines=2) == 5
  assert steps_in(tmp_path) == [1, 2, 2, 3, 4]


@pytest.mark.parametrize('half', ['{"step": 3, "ep', '{"step": 3}', '\udcff'])
def test_resume_drops_a_half_written_line(tmp_path, half):
  write(tmp_path, [1, 2])
  with (tmp_path / 'metrics.jsonl').open('ab') as file:
    file.write(half.encode(errors='surrogateescape'))
  write(tmp_path, [3], step=2, lines=2)
  assert steps_in(tmp_path) == [1, 2, 3]


def test_resume_without_a_file(tmp_path):
  made = writer.MetricsWriter(tmp_path, 2, 2, crc=12345)
  assert made.lines == 0
  made.close()


@pytest.mark.parametrize('change', ['cut', 'flip'])
def test_other_lines_than_were_written_are_refused(tmp_path, change):
  write(tmp_path, [1, 2, 3])
  path, crc = tmp_path / 'metrics.jsonl', crc_of(tmp_path, 3)
  content = bytearray(path.read_bytes())
  if change == 'cut':
    del content[-5:]
  else:
    content[20] ^= 1
  path.write_bytes(content)
  with pytest.raises(errors.UsageError, match=r'its first 3 lines are not'):
    writer.MetricsWriter(tmp_path, 3, 3, crc)
  assert path.read_bytes() == content  # For whoever wants to mend it.


@hypothesis.given(
  st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40)), max_size=5)
)
@hypothesis.settings(max_examples=10)
def test_kills_anywhere(tmp_path_factory, kills):
  """Each life writes on from a save, then loses up to so many bytes."""
  workdir = tmp_path_factory.mktemp('kills')
  path = workdir / 'metrics.jsonl'
  whole = [json.dumps({'step': i}) for i in range(12)]
  for saved, extra in kills:
    # A save at line `saved` happened, then `extra` bytes more were written.
    text = ''.join(line + '\n' for line in whole[:saved])
    rest = ''.join(line + '\n' for line in whole[saved:])
    path.write_text(text + rest[:extra])
    crc = zlib.crc32(text.encode())
    made = writer.MetricsWriter(workdir, saved, saved, crc)
    made.close()
    assert path.read_text() == text
    assert made.lines == saved


def test_console_lines(capsys):
  console = writer.Console(10, 0)
  console.advance()
  console.show(3, {'val/auc': 0.5, 'train/examples_per_s': 12345.6})
  console.close()
  assert capsys.readouterr().out == (
    'step 3/10  val/auc 0.5000  train/examples_per_s 12,346\n'
  )
