"""Barriers: who skipped one is noticed by all at the next."""

import threading

import pytest

from dare_jax.parallel import barriers


class _Coordinator:
  """Two processes of JAX's key-value store, as threads of this one."""

  def __init__(self):
    self.values = {}
    self._barrier = threading.Barrier(2, timeout=20)

  def key_value_set(self, key, value, allow_overwrite):
    assert allow_overwrite
    self.values[key] = value

  def key_value_delete(self, key):
    del self.values[key]

  def key_value_dir_get(self, key):
    return [pair for pair in self.values.items() if pair[0].startswith(key)]

  def wait_at_barrier(self, name, timeout_ms):
    del name, timeout_ms
    self._barrier.wait()


@pytest.fixture
def run(monkeypatch):
  """Passes keys on each of two processes; returns what they raised, where."""
  coordinator, own = _Coordinator(), threading.local()
  monkeypatch.setattr(barriers.distributed.global_state, 'client', coordinator)
  monkeypatch.setattr(barriers.processes, 'is_alone', lambda: False)
  monkeypatch.setattr(barriers.jax, 'process_index', lambda: own.number)

  def passes(*keys_of_each):
    raised = [[], []]

    def work(number, keys):
      own.number = number
      made = barriers.Barriers('last')
      for key in keys:
        try:
          made(key=key, timeout_ms=1000)
        except barriers.PeerError:
          raised[number].append(key)

    threads = [
      threading.Thread(target=work, args=pair)
      for pair in enumerate(keys_of_each)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    return raised, coordinator.values

  return passes


def test_all_meet(run):
  keys = ['written', 'named', 'start', 'end', 'written']
  raised, values = run(keys, keys)
  assert raised == [[], []]
  assert sorted(values) == ['last/4/0', 'last/4/1']  # Earlier ones are gone.


def test_one_that_skips_a_barrier_stops_all(run):
  raised, _ = run(['start', 'end'], ['written', 'named', 'start', 'end'])
  assert raised == [['start', 'end'], ['written', 'named', 'start', 'end']]


def test_alone_there_is_nobody_to_wait_for():
  barriers.Barriers('last')(key='written', timeout_ms=1)
