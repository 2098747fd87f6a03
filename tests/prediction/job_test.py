"""Long jobs of the command: killed, taken up again, shared out."""

import dataclasses
import itertools

import polars as pl
import pytest

from dare_jax import errors


class _Killed(BaseException):
  """Ends a run as a signal that nothing handles would."""


@dataclasses.dataclass
class _StopAt:
  """Ends a run at the n-th check."""

  number: int

  def check(self):
    self.number -= 1
    if self.number <= 0:
      raise _Killed


@pytest.mark.parametrize('kind', ['csv', 'csv.gz', 'parquet'])
@pytest.mark.quick_cases('csv')
def test_killed_anywhere_the_result_is_the_same(
  tmp_path, ask, expected, kind, capsys
):
  frame = expected[0].head(150)
  frame.write_csv(tmp_path / 'in.csv')
  whole, path = tmp_path / f'whole.{kind}', tmp_path / f'out.{kind}'
  ask(tmp_path / 'in.csv', whole, block=40)
  ends = 0
  for number in itertools.count(2):
    try:
      ask(tmp_path / 'in.csv', path, stop=_StopAt(number), block=40)
      break
    except _Killed:
      ends += 1
      assert not path.exists()
  assert ends >= 2
  assert 'were scored before' in capsys.readouterr().err
  assert path.read_bytes() == whole.read_bytes()
  assert [*tmp_path.glob('*.parts')] == []
  assert [*tmp_path.glob('*.lock')] == []


def test_parts_of_another_request_are_not_taken(
  tmp_path, ask, expected, capsys
):
  frame = expected[0].head(100)
  path = tmp_path / 'out.csv'
  frame.write_csv(tmp_path / 'in.csv')
  ask(tmp_path / 'in.csv', tmp_path / 'whole.csv', block=40)
  with pytest.raises(_Killed):
    frame.reverse().write_csv(tmp_path / 'other.csv')
    ask(tmp_path / 'other.csv', path, stop=_StopAt(4), block=40)
  assert [*(tmp_path / 'out.csv.parts').glob('*.part')]
  ask(tmp_path / 'in.csv', path, block=40)
  assert 'are discarded: other input' in capsys.readouterr().err
  assert path.read_bytes() == (tmp_path / 'whole.csv').read_bytes()


@pytest.mark.parametrize('kind', ['csv', 'parquet'])
def test_shards_one_after_another_are_the_whole(tmp_path, ask, expected, kind):
  frame = expected[0].head(150)
  source = tmp_path / f'in.{kind}'
  getattr(frame, f'write_{kind}')(source)
  ask(source, tmp_path / f'whole.{kind}', block=40)
  for number in (3, 1, 5, 2, 4):
    ask(source, tmp_path / f'out.{kind}', shard=f'{number}/5', block=40)
  parts = sorted(tmp_path.glob(f'out-*-of-00005.{kind}'))
  assert len(parts) == 5
  if kind == 'csv':
    joined = b''.join(part.read_bytes() for part in parts)
    assert joined == (tmp_path / 'whole.csv').read_bytes()
  else:
    joined = pl.concat([pl.read_parquet(part) for part in parts])
    assert joined.equals(pl.read_parquet(tmp_path / 'whole.parquet'))


def test_one_process_at_a_time(tmp_path, ask):
  (tmp_path / 'in.csv').write_text('user_id,item_id,timestamp\nu1,i1,5\n')

  class Second:
    def check(self):
      ask(tmp_path / 'in.csv', tmp_path / 'out.csv')

  with pytest.raises(errors.UsageError, match='is being made by another'):
    ask(tmp_path / 'in.csv', tmp_path / 'out.csv', stop=Second())
