"""What a run says that it is about to do."""

import pytest

from dare_jax import errors
from dare_jax.runs import opening
from tests import tiny


def _told(capsys):
  """Returns the title, and name -> text, of what has been printed."""
  text = capsys.readouterr().out.split('\nstep ')[0]
  lines = text.splitlines()
  assert max(len(line) for line in lines if '/' not in line) <= 80
  assert sum(line.startswith('  ') for line in lines) < 24  # One screen.
  title, *lines = text.splitlines()
  told, name = {}, ''
  for line in lines:
    if not line.startswith('  '):
      continue
    name = line[2:16].strip() or name
    told[name] = f'{told.get(name, "")} {line[16:]}'.strip()
  return title, told


def test_a_run_says_what_it_is_about_to_do(tmp_path, capsys):
  tiny.write_log(tmp_path / 'log.csv')
  made, run = tiny.config(tmp_path, train__steps=4), tmp_path / 'run'
  with pytest.raises(errors.Stopped):
    tiny.run(made, run, tiny.StopAtCheck(3))
  title, told = _told(capsys)
  assert title == 'dare on csv_log, seed 1'
  assert told['model'] == (
    'plan decoupled, scorer dot, search score of the top 5, aggregation softmax'
  )
  assert told['log'] == (
    f'{tmp_path}/log.csv: 3,611 behaviors of 60 users, from 0 to 29'
  )
  assert told['moments'].startswith('train 3,037, val 120, test 115; split')
  assert '20 behaviors before it' in told['each moment']
  assert '2 sampled negatives' in told['each moment']
  assert told['unknown ids'] == (
    'not in training: item 0 of 100, category 0 of 10; of val positives item'
    ' 0.00%, category 0.00%; of test positives item 0.00%, category 0.00%'
  )
  attention, representation = told['rows x width'].split('; ')
  assert attention.startswith('attention: item 102 x 4, category 12 x 4, time')
  assert representation.startswith('representation: item 102 x 4')
  rows = 12 + 102 + int(attention.rsplit('time ', 1)[1].split()[0])
  assert told['parameters'].startswith(
    f'{4 * rows:,} in attention tables, {4 * rows:,} in representation'
  )
  assert told['training'] == (
    f'4 steps of 32 moments, {4 * 32 / 3037:.3g} epochs; validated every 4'
    ' steps and at the end, saved every 3 steps and at the end'
  )
  assert told['devices'] == '1 x cpu'
  assert told['workdir'] == f'{run}: begins'
  assert ' MB of ' in told['memory'] and 'activations' in told['memory']
  tiny.run(made, run)
  assert _told(capsys)[1]['workdir'] == f'{run}: goes on from step 2'


def test_texts_are_wrapped_beside_their_names():
  text = opening.aligned([('name', 'word ' * 20), ('other', 'x' * 90)])
  assert text.splitlines() == [
    f'  name          {" ".join(["word"] * 13)}',
    f'{"":16}{" ".join(["word"] * 7)}',
    f'  other         {"x" * 90}',  # A path, say: it can be copied.
  ]
