"""The command: what it writes, keeps, and refuses."""

import html.parser
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.analysis import catalogue
from dare_jax.analysis import runner
from dare_jax.analysis import sources
from dare_jax.evaluation import metrics
from tests import tiny

pytestmark = pytest.mark.slow  # Two trainings and a whole report.
_CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Two runs that have just begun, and their report."""
  root = tmp_path_factory.mktemp('analyze')
  tiny.write_log(root / 'log.csv', num_users=40)
  for name in ('dare', 'twin'):
    fields = {'train__observe_gradients': name == 'twin'}
    config = tiny.config(
      root,
      model__name=name,
      train__steps=2,
      train__log_every_steps=1,
      **fields,
    )
    tiny.run(config, root / name)
  make(root)
  return root


def make(root, tell=lambda _: None, only=(), runs=('dare', 'twin')):
  found = sources.locate([str(root / name) for name in runs])
  analyses = catalogue.choose(only)
  return runner.run(found, analyses, root / 'report', tell)


class Page(html.parser.HTMLParser):
  """Collects what a page would load, and whether its elements close."""

  def __init__(self):
    super().__init__()
    self.loaded, self.open, self.ids, self.text = [], [], [], ''

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    for name in ('src', 'href', 'xlink:href', 'srcset', 'data', 'action'):
      if name in attributes:
        self.loaded.append(attributes[name])
    if 'id' in attributes:
      self.ids.append(attributes['id'])
    if tag not in ('meta', 'link', 'br'):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def test_page_is_whole_and_loads_nothing(root):
  text = (root / 'report' / 'report.html').read_text()
  page = Page()
  page.feed(text)
  assert not page.open
  assert all(link.startswith(('#', 'data:')) for link in page.loaded)
  assert 'url(http' not in text and '@import' not in text
  made = json.loads((root / 'report' / 'made.json').read_text())
  figures = [
    name for a in catalogue.ANALYSES for name in made[a.name]['figures']
  ]
  assert figures
  assert {*figures} <= {*page.ids}


def test_every_figure_has_its_numbers_its_picture_and_a_sentence(root):
  page = (root / 'report' / 'report.html').read_text()
  made = json.loads((root / 'report' / 'made.json').read_text())
  for analysis in catalogue.ANALYSES:
    for figure in analysis.figures:
      if figure.name not in made[analysis.name]['figures']:
        continue
      file = root / 'report' / f'{figure.name}.json'
      data = json.loads(file.read_text())['data']
      assert figure.sentence(data).endswith('.')
      if figure.panels(data):
        picture = (root / 'report' / f'{figure.name}.png').read_bytes()
        assert picture.startswith(b'\x89PNG')
        assert page.count('<svg') >= len(figure.panels(data))


def test_second_call_measures_and_draws_nothing(root):
  told = []
  before = (root / 'report' / 'report.html').stat().st_mtime_ns
  make(root, told.append)
  assert len(told) == len(catalogue.ANALYSES)
  assert all('nothing has changed' in line for line in told)
  assert (root / 'report' / 'report.html').stat().st_mtime_ns == before


def test_another_checkpoint_is_measured_anew(root):
  found = sources.locate([str(root / 'dare')])
  analysis = catalogue.ANALYSES[0]
  before = runner.fingerprint(analysis, found)
  found.all[0].identity['step'] += 1
  assert runner.fingerprint(analysis, found) != before


def test_more_lines_of_metrics_are_read_anew(root):
  found = sources.locate([str(root / 'dare')])
  before = {a.name: runner.fingerprint(a, found) for a in catalogue.ANALYSES}
  file = root / 'dare' / 'metrics.jsonl'
  content = file.read_bytes()
  file.write_bytes(content + b'{"step": 3, "epoch": 1, "time_s": 1}\n')
  after = {a.name: runner.fingerprint(a, found) for a in catalogue.ANALYSES}
  file.write_bytes(content)
  changed = {name for name in before if before[name] != after[name]}
  assert changed == {'gradients', 'efficiency'}


def test_files_that_are_gone_are_written_again(root):
  data = json.loads((root / 'report' / 'projector.json').read_text())['data']
  file = root / 'report' / data['files'][0]
  file.unlink()
  make(root, only=['projector'])
  assert file.is_file()


def test_a_search_over_clusters_is_analysed_but_for_its_search(root):
  config = tiny.config(root, model__name='twin_v2', train__steps=2)
  tiny.run(config, root / 'clusters')
  told = []
  path = runner.run(
    sources.locate([str(root / 'clusters'), str(root / 'dare')]),
    catalogue.choose([]),
    root / 'report_clusters',
    told.append,
  )
  assert any('without clusters' in line for line in told)
  assert 'Left out, as it searches over clusters' in path.read_text()
  found = sources.locate([str(root / 'clusters')])
  own = metrics.load(root / 'clusters' / 'predictions_test.npz')
  np.testing.assert_allclose(
    np.sort(found.predictions(found.all[0]).logit),
    np.sort(own.logit),
    rtol=1e-4,
  )
  with pytest.raises(errors.UsageError, match='searches over clusters'):
    runner.run(found, catalogue.choose(['search']), root / 'none', told.append)


def test_a_run_without_a_best_checkpoint_is_read_from_its_last(root):
  """As while it trains, before its first evaluation."""
  copy = root / 'begun'
  shutil.copytree(root / 'dare', copy)
  shutil.rmtree(copy / 'checkpoints' / 'best')
  found = sources.locate([str(copy)])
  assert found.all[0].step == 2


def test_refusals(root):
  with pytest.raises(errors.UsageError, match='--only=serch: expected one of'):
    catalogue.choose(['serch'])
  with pytest.raises(errors.UsageError, match='Did you mean search'):
    catalogue.choose(['serch'])
  twice = [str(root / 'dare'), str(root / 'dare')]
  with pytest.raises(errors.UsageError, match='names a folder twice'):
    sources.locate(twice)
  with pytest.raises(errors.UsageError, match='no run there'):
    sources.locate([str(root / 'data')])
  shutil.copytree(root / 'dare', root / 'short')
  file = root / 'short' / 'config.json'
  config = json.loads(file.read_text()) | {'data.history_length': 10}
  file.write_text(json.dumps(config))
  with pytest.raises(errors.UsageError, match='data.history_length is 20 in'):
    sources.locate([str(root / 'dare'), str(root / 'short')])


def test_command_refuses_in_one_line():
  done = subprocess.run(
    [sys.executable, '-m', 'dare_jax.analyze', '--runs=x', '--output='],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr == "error: --output is missing: the report's folder.\n"


@pytest.mark.skipif(_CHROMIUM is None, reason='no Chromium; pages are parsed')
@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_opens_in_a_browser_without_complaint(root, tmp_path, theme):
  scheme = {'dark': 0, 'light': 1}[theme]
  done = subprocess.run(
    [
      *(_CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu'),
      f'--user-data-dir={tmp_path}',
      f'--blink-settings=preferredColorScheme={scheme}',
      *('--enable-logging=stderr', '--dump-dom', '--window-size=400,900'),
      f'file://{root}/report/report.html',
    ],
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
  )
  assert done.returncode == 0
  assert '</html>' in done.stdout
  assert 'CONSOLE' not in done.stderr
