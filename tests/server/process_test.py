"""Servers in processes of their own: killed, stopped, and given new bundles."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2 as httpx
import numpy as np
import pytest

from dare_jax import errors
from dare_jax.server import runner
from dare_jax.server import service
from tests.server import double
from tests.server import kills
from tests.server import process
from tests.server import sites

_BODY = {'history': sites.history(), 'candidates': sites.CANDIDATES}


@pytest.mark.slow
def test_what_was_acknowledged_survives_kills(tmp_path):
  assert kills.run(tmp_path, f'sqlite:{tmp_path}/state.db', kills=1) > 0


def test_sigterm_finishes_what_was_begun_and_leaves(tmp_path):
  bundle = double.write(tmp_path / 'b', delay_s=0.6)
  with process.Server(bundle, '--drain_s=1') as server:
    begun: list[httpx.Response] = []
    thread = threading.Thread(
      target=lambda: begun.append(server.client.post('/score', json=_BODY))
    )
    thread.start()
    time.sleep(0.3)
    server.send(signal.SIGTERM)
    time.sleep(0.1)
    assert server.client.get('/v2/health/live').status_code == 200
    assert server.client.get('/v2/health/ready').status_code == 503
    refused = server.client.post('/score', json=_BODY)
    assert refused.status_code == 503
    assert 'retry-after' in refused.headers
    thread.join()
    assert begun[0].status_code == 200
    assert server.wait() == 0


def test_stopped_before_it_is_ready(tmp_path):
  """There is nothing to finish: the exit code is that of the signal."""
  bundle = double.write(tmp_path / 'b', delay_s=30)
  command = [sys.executable, '-m', process.DOUBLE, f'--bundle={bundle}']
  with subprocess.Popen(
    [*command, '--port=0', '--max_queue=1'],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=process.ROOT,
  ) as started:
    _wait_until(lambda: _catches(started.pid) and _listens(started.pid))
    started.send_signal(signal.SIGTERM)
    out, log = started.communicate(timeout=20)
  assert started.returncode == 128 + signal.SIGTERM
  assert out == ''
  assert 'stopped by SIGTERM' in log


def _catches(pid):
  """Whether a process has taken SIGTERM over; imports open sockets before."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  caught = int(status.split('SigCgt:')[1].split()[0], 16)
  return bool(caught >> (signal.SIGTERM - 1) & 1)


def _listens(pid):
  """Whether a process has a socket among its files."""
  folder = pathlib.Path(f'/proc/{pid}/fd')
  names = []
  for file in folder.iterdir():
    with contextlib.suppress(OSError):
      names.append(os.readlink(file))
  return any('socket' in name for name in names)


def test_ctrl_c_leaves_without_delay(tmp_path):
  with process.Server(double.write(tmp_path / 'b'), '--drain_s=50') as server:
    assert server.line.startswith('serving double v1 at http://127.0.0.1:')
    # An answer whose last part waits to be acknowledged takes 40 ms or more.
    assert min(_seconds(server) for _ in range(20)) < 0.03
    server.send(signal.SIGINT)
    assert server.wait() == 0


def _seconds(server):
  begin = time.perf_counter()
  server.client.get('/v2/health/live')
  return time.perf_counter() - begin


def _point(link, folder):
  """Turns a symlink in one step."""
  os.symlink(folder, f'{link}.new')
  os.replace(f'{link}.new', link)


def test_a_new_bundle_is_swapped_in_under_load(tmp_path):
  """No request fails, and each answer is wholly of one version."""
  versions = ['v1', 'v2', 'v3']
  folders = [double.write(tmp_path / v, version=v) for v in versions]
  right = {
    v: sites.expected(double.Double(v), sites.history()) for v in versions
  }
  link = tmp_path / 'bundle'
  _point(link, folders[0])
  with process.Server(link, '--watch_s=0.05', '--nolog_requests') as server:
    events = sites.events(sites.history())
    server.client.post('/users/u/events', json=events)
    stop, seen = threading.Event(), set()
    asked = {'user_id': 'u', 'candidates': sites.CANDIDATES}

    def ask():
      with httpx.Client(base_url=server.url, timeout=30) as client:
        for body in [_BODY, asked] * 10_000:
          if stop.is_set():
            return
          answer = client.post('/score', json=body).raise_for_status().json()
          logits = np.float32([one['logit'] for one in answer['scores']])
          np.testing.assert_array_equal(logits, right[answer['version']])
          seen.add(answer['version'])

    failed: list[BaseException] = []

    def guarded():
      try:
        ask()
      except BaseException as error:
        failed.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(3)]
    for thread in threads:
      thread.start()
    for version, folder in list(zip(versions, folders, strict=True))[1:]:
      _point(link, folder)
      _wait_until(lambda v=version: failed or v in seen)
    _point(link, double.write(tmp_path / 'other', fields=['item', 'shop']))
    _wait_until(lambda: _model(server)['refused'] is not None)
    stop.set()
    for thread in threads:
      thread.join()
    assert not failed
    assert _version(server) == 'v3'
    assert 'fields differ' in _model(server)['refused']
    metrics = server.client.get('/metrics').text
    assert 'dare_swaps_total{result="taken"} 2.0' in metrics
    assert 'dare_swaps_total{result="refused"} 1.0' in metrics


def _model(server):
  return server.client.get('/v2/models/double').json()


def _version(server):
  return _model(server)['versions'][0]


def _wait_until(is_so, seconds=20.0):
  deadline = time.monotonic() + seconds
  while not is_so():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_a_token_is_needed_beyond_this_machine(tmp_path, monkeypatch):
  monkeypatch.delenv(runner.TOKEN_VARIABLE, raising=False)
  local = runner.Options(bundle='b')
  assert runner.find_token(local) is None
  other = runner.Options(bundle='b', host='0.0.0.0')
  with pytest.raises(errors.UsageError, match='a token is needed'):
    runner.find_token(other)
  file = tmp_path / 'token'
  file.write_text('short\n')
  given = runner.Options(bundle='b', token_file=str(file))
  with pytest.raises(errors.UsageError, match='at least 16 characters'):
    runner.find_token(given)
  file.write_text('0123456789abcdef\n')
  assert runner.find_token(given) == '0123456789abcdef'
  monkeypatch.setenv(runner.TOKEN_VARIABLE, 'another-long-token')
  assert runner.find_token(other) == 'another-long-token'
  assert runner.find_token(local) == 'another-long-token'
  missing = runner.Options(bundle='b', token_file=str(tmp_path / 'no'))
  with pytest.raises(errors.UsageError, match='No such file'):
    runner.find_token(missing)


def test_what_cannot_be_served_is_refused_at_once(tmp_path):
  bundle = str(double.write(tmp_path / 'b'))
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    for options, said in (
      ({'port': port}, 'Address already in use'),
      ({'port': 0, 'max_events': 5}, 'the model is shown 20 behaviors'),
      ({'port': 0, 'state': 'disk'}, 'expected memory, sqlite:PATH'),
      ({'port': 0, 'host': 'no.such.host.invalid'}, 'a token is needed'),
    ):
      made = runner.Options(bundle=bundle, **options)
      with pytest.raises(errors.UsageError, match=said):
        runner.serve(made, double.open_double)
  with pytest.raises(errors.UsageError, match='max_queue=0: expected a pos'):
    service.Limits(max_queue=0)
