"""Files that start servers elsewhere: their flags, ports and packages exist."""

from __future__ import annotations

import configparser
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from tests.server import sites

_ROOT = pathlib.Path(__file__).parents[2]
_FOLDER = _ROOT / 'launch' / 'serving'


@pytest.fixture(scope='module')
def flags():
  done = subprocess.run(
    [sys.executable, '-m', 'dare_jax.serve', '--help'],
    capture_output=True,
    text=True,
    check=True,
    cwd=_ROOT,
  )
  return set(re.findall(r'^  --(\w+)', done.stdout, re.MULTILINE))


@pytest.mark.parametrize(
  'file', ['Containerfile', 'compose.yaml', 'kubernetes.yaml']
)
def test_flags_are_those_of_the_command(file, flags):
  text = (_FOLDER / file).read_text()
  comments = re.compile(r'^\s*#.*$', re.MULTILINE)
  server = comments.sub('', text).partition('redis-server')[0]
  used = set(re.findall(r'--([a-z_]+)=', server)) - {'uid'}
  ours = used - {'interval', 'timeout', 'retries'}
  assert 'bundle' in ours
  assert ours <= flags


def test_probes_ask_for_what_is_answered():
  site = sites.open_site(token='0123456789abcdef')
  for path in _FOLDER.iterdir():
    for asked in re.findall(r'/v2/health/\w+', path.read_text()):
      assert site.client.get(asked).status_code == 200
  site.service.close()


def test_manifests_are_whole():
  kinds = {}
  for one in yaml.safe_load_all((_FOLDER / 'kubernetes.yaml').read_text()):
    kinds.setdefault(one['kind'], []).append(one)
  (deployment,) = kinds['Deployment']
  pod = deployment['spec']['template']
  assert (
    pod['metadata']['labels'] == deployment['spec']['selector']['matchLabels']
  )
  container = pod['spec']['containers'][0]
  drain = next(a for a in container['args'] if a.startswith('--drain_s='))
  # The drain, a request's time limit of 5 s, and some more.
  grace = pod['spec']['terminationGracePeriodSeconds']
  assert grace > float(drain.partition('=')[2]) + 5
  mounted = {one['name'] for one in container['volumeMounts']}
  assert mounted == {one['name'] for one in pod['spec']['volumes']}
  services = {one['metadata']['name'] for one in kinds['Service']}
  state = next(a for a in container['args'] if a.startswith('--state='))
  assert re.search('//(.*):', state)[1] in services
  compose = yaml.safe_load((_FOLDER / 'compose.yaml').read_text())
  assert set(compose['services']) == {'serve', 'redis', 'prometheus'}
  scrape = yaml.safe_load((_FOLDER / 'prometheus.yaml').read_text())
  target = scrape['scrape_configs'][0]['static_configs'][0]['targets'][0]
  assert target.partition(':')[0] in compose['services']


def test_the_image_has_what_the_extra_has():
  setup = configparser.ConfigParser()
  setup.read(_ROOT / 'setup.cfg')
  lines = (_FOLDER / 'requirements.txt').read_text().splitlines()
  image = {line for line in lines if not line.startswith('#')}
  extra = setup['options.extras_require']['serve'].split()
  needed = setup['options']['install_requires'].split()
  assert set(extra) <= image
  assert image <= {*extra, *needed}
