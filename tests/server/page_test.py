"""The page at /, in a headless Chromium where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.server import double
from tests.server import process
from tests.server import sites

_BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


def browse(url: str, *flags: str) -> str:
  """Returns the page as it is after its scripts have run."""
  program = next(filter(None, map(shutil.which, _BROWSERS)), None)
  if program is None:
    pytest.skip('no Chromium is installed (Debian: apt install chromium)')
  done = subprocess.run(
    [program, '--headless=new', '--no-sandbox', '--disable-gpu', *flags, url],
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  )
  return done.stdout


@pytest.mark.slow
def test_the_page_shows_scores_of_two_models_and_what_was_found(tmp_path):
  bundle = double.write(tmp_path / 'a')
  beside = double.write(tmp_path / 'b', name='other', version='w1')
  with process.Server(bundle, f'--beside={beside}') as server:
    rows = sites.history(12)
    rows[3]['item'] = '<b>i3</b>'
    answer = server.client.post(
      '/users/u/events', json=sites.events(rows)
    ).raise_for_status()
    assert answer.json()['accepted'] == 12
    page = browse(server.url, '--virtual-time-budget=5000', '--dump-dom')
  page = page.partition('<script>')[0]
  assert 'double v1' in page
  assert 'other w1' in page
  assert page.count('aria-pressed="true"') == 2
  assert page.count('Found for') == 2
  # Three found for each model, and a header.
  assert len(re.findall('<tr>', page)) == 8
  assert len(re.findall('<rect', page)) == 12 + 6
  # Raw values are text, never markup.
  assert '<b>i3</b>' not in page
  assert 'id="error" role="alert"></p>' in page


def test_the_page_is_self_contained():
  site = sites.open_site(token='0123456789abcdef')
  answer = site.client.get('/')
  assert answer.status_code == 200
  assert "default-src 'none'" in answer.headers['content-security-policy']
  assert not re.search(r'(src|href)=', answer.text)
  site.service.close()
