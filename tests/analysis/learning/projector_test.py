"""Vectors and names for the projector, beside the tables of the run."""

import numpy as np

from dare_jax.analysis import sources
from dare_jax.analysis.learning import projector
from tests import tiny
from tests.analysis import untrained


def test_files_hold_the_rows_and_names_of_ids(tmp_path):
  tiny.write_log(tmp_path / 'log.csv', num_users=30)
  own = untrained.source(tmp_path, 'dare')
  of = sources.Sources([own])
  data = projector.measure(of, lambda _: None, tmp_path / 'out')['projector']
  tables = {made['table'] for made in data['tables']}
  assert tables == {
    f'{field}_{role}'
    for field in ('item', 'category')
    for role in ('attention', 'representation')
  }
  folder = tmp_path / 'out' / data['tables'][0]['folder']
  names = (folder / 'item_attention.metadata.tsv').read_text().splitlines()
  assert names[0] == 'item\tevents\tcategory'
  vectors = np.loadtxt(folder / 'item_attention.tensors.tsv', delimiter='\t')
  assert len(vectors) == len(names) - 1
  events = [int(line.split('\t')[1]) for line in names[1:]]
  assert events == sorted(events, reverse=True)
  raw = [line.split('\t')[0] for line in names[1:]]
  ids = own.run.ids('item', raw)
  table = own.run.variables['tables']['encoder']['item_attention']
  np.testing.assert_allclose(vectors, table[ids], rtol=1e-5, atol=1e-6)
  for line in names[1:]:  # i37 is of c7.
    item, _, category = line.split('\t')
    assert category == f'c{int(item[1:]) % 10}'
  config = (folder / 'projector_config.pbtxt').read_text()
  assert config.count('embeddings {') == 4
  assert 'tensor_path: "item_attention.tensors.tsv"' in config
  assert all((tmp_path / 'out' / file).is_file() for file in data['files'])


def test_names_cannot_break_the_lines_of_a_file():
  assert projector._cell('a\tb\nc') == 'a b c'
  assert projector._cell('') == '(empty)'
