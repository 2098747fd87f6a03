"""The load of `bench serve` is open, and its rows tell what a server did."""

import asyncio
import contextlib
import pathlib
import threading

import numpy as np
import pytest

from dare_jax import errors
from dare_jax.bench.serving import figure
from dare_jax.bench.serving import load
from dare_jax.bench.serving import plain
from dare_jax.bench.serving import serve
from dare_jax.bench.serving import server_process
from dare_jax.bench.serving import traffic
from tests.server import double
from tests.server import process

_MOST = traffic.Case((1, 40), (5, 20))


async def _cancel_others():
  others = asyncio.all_tasks() - {asyncio.current_task()}
  for task in others:
    task.cancel()
  await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def stalling_server(seconds):
  """Answers one request after the other, each after `seconds`; its port."""
  loop = asyncio.new_event_loop()
  turn = asyncio.Lock()

  async def answer(reader, writer):
    with contextlib.suppress(asyncio.IncompleteReadError):
      while True:
        await reader.readuntil(b'\r\n\r\n')
        async with turn:
          await asyncio.sleep(seconds)
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}')

  server = loop.run_until_complete(asyncio.start_server(answer, '127.0.0.1', 0))
  thread = threading.Thread(target=loop.run_forever)
  thread.start()
  try:
    yield server.sockets[0].getsockname()[1]
  finally:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    loop.run_until_complete(_cancel_others())
    loop.close()


def test_latency_counts_from_when_a_request_was_due():
  """Twice as many as can be answered: each waits longer than the one before."""
  with stalling_server(0.04) as port:
    due = 0.02 * np.arange(20)
    found = load.run(port, [load.post('/', b'')] * 20, due)
  assert found.failed == 0
  # The last is due after 0.38 s, and answered no sooner than after 0.8.
  assert found.latency_s[-1] > 0.4
  assert found.latency_s[0] < found.latency_s[10] < found.latency_s[-1]
  assert found.seconds >= 0.8


def test_a_request_without_an_answer_has_failed():
  with stalling_server(0.0) as port:
    pass
  found = load.run(port, [load.post('/', b'')] * 2, np.zeros(2))
  assert found.failed == 2


def test_users_ask_by_zipf_and_histories_spread():
  own = traffic.Traffic(double.Double(), _MOST, 50, seed=0)
  assert own.lengths.min() >= 5
  assert own.lengths.max() <= 20
  asked = [one.partition(b'\r\n\r\n')[2] for one in own.some(2000)]
  of_user = lambda n: sum(b'"mixed-%d"' % n in one for one in asked)
  assert 1.5 < of_user(0) / of_user(1) < 2.7
  assert of_user(0) > 8 * of_user(49)


@pytest.mark.slow
def test_rows_of_a_server(tmp_path, monkeypatch):
  """Of the double of a bundle: what is measured is the command's own server."""
  monkeypatch.setattr(serve, '_SIDES', {'dare_jax': process.DOUBLE})
  bundle = double.Double()
  bundle.path = double.write(tmp_path / 'bundle')
  cases = traffic.parse(['4x10', 'mixed'], _MOST)
  options = serve.Options(cases, rates=(50.0,), seconds=0.2, users=5)
  rows = serve.measure(bundle, options, ['dare_jax'])
  assert [(row['case'], row['phase']) for row in rows] == [
    ('4x10', 'cold'), ('4x10', 'warm'), ('mixed', 'cold'), ('mixed', 'warm'),
  ]  # fmt: skip
  for row in rows:
    assert row['failed'] == 0
    assert 0 < row['least_ms'] <= row['p50_ms'] <= row['p95_ms']
    assert row['p95_ms'] <= row['p99_ms']
    assert row['rss_mb'] > 20
    assert row['score_ms'] > 0
    inside = sum(row[f'{stage}_ms'] for stage in serve.STAGES)
    assert inside < 1e3 * row['requests'] / row['answered_per_s']
  assert rows[0]['requests'] == 5
  assert rows[1]['requests'] == 10
  path = pathlib.Path(tmp_path / 'serve.png')
  figure.draw([*rows, *(row | {'side': 'torch'} for row in rows)], path)
  assert path.stat().st_size > 10_000


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: serve.parse_rates(['5', 'x']), '--rates=5,x'),
    (lambda: serve.parse_rates([]), '--rates='),
    (lambda: traffic.parse(['20by200'], _MOST), '20by200'),
    (lambda: traffic.parse(['20x2000'], _MOST), 'is shown 20 behaviors'),
    (
      lambda: server_process.ServerProcess(server_process.OURS, '/none', []),
      'did not start.*no bundle',
    ),
  ],
)
def test_bad_flags_are_told(call, message):
  with pytest.raises(errors.UsageError, match=message):
    call()


def test_the_plain_model_is_dare_alone():
  manifest = {'plan': 'shared'}
  if not plain.is_installed():
    with pytest.raises(errors.UsageError, match='pip install torch'):
      plain.check(manifest)
    return
  with pytest.raises(errors.UsageError, match="'decoupled'.*'shared'"):
    plain.check(manifest)
