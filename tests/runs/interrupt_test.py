"""Signals: noted everywhere, at once only where nothing is to be saved."""

import os
import signal

import pytest

from dare_jax import errors
from dare_jax.parallel import processes
from dare_jax.process import signals
from dare_jax.runs import interrupt


@pytest.fixture
def stop():
  numbers = (signal.SIGTERM, signal.SIGINT)
  before = {number: signal.getsignal(number) for number in numbers}
  made = interrupt.StopSignal()
  made.install()
  yield made
  for number, handler in before.items():
    signal.signal(number, handler)
  signals._forget()


def terminate():
  os.kill(os.getpid(), signal.SIGTERM)


def test_noted_until_the_next_check(stop):
  stop.check()
  terminate()
  assert stop.requested
  terminate()  # Impatience changes nothing.
  with pytest.raises(errors.Stopped, match='saved'):
    stop.check()


def test_at_once_where_there_is_nothing_to_save(stop):
  with pytest.raises(errors.Stopped, match='nothing to save'):
    with stop.at_once():
      terminate()
      pytest.fail('went on')  # pragma: no cover
  assert stop.requested


def test_of_several_none_leaves_the_others_waiting(stop, monkeypatch):
  monkeypatch.setattr(processes, 'is_alone', lambda: False)
  monkeypatch.setattr(processes, 'any_of', lambda flag: flag)
  reached = []
  with pytest.raises(errors.Stopped, match='nothing to save'):
    with stop.at_once():
      terminate()
      reached.append('the end')
  assert reached == ['the end']


def test_a_signal_before_counts(stop):
  terminate()
  with pytest.raises(errors.Stopped, match='nothing to save'):
    with stop.at_once():
      pytest.fail('went on')


def test_at_once_ends_with_its_block(stop):
  with stop.at_once():
    pass
  terminate()
  assert stop.requested


def test_no_handler_of_exceptions_takes_it_for_a_failure(stop):
  """A library that maps exceptions to its own must not hide the request."""
  with pytest.raises(errors.Stopped), stop.at_once():
    try:
      terminate()
    except Exception:
      pytest.fail('swallowed')


def test_ctrl_c_does_what_sigterm_does(stop):
  os.kill(os.getpid(), signal.SIGINT)
  assert stop.requested
  with pytest.raises(errors.Stopped, match='by SIGINT: the state is saved'):
    stop.check()


def test_another_signal_does_not_disturb_the_way_out(stop):
  """As from a launcher that passes Ctrl-C on."""
  cleaned = []
  with pytest.raises(errors.Stopped, match='by SIGINT'):
    with stop.at_once():
      try:
        os.kill(os.getpid(), signal.SIGINT)
      finally:
        terminate()
        os.kill(os.getpid(), signal.SIGINT)  # The same press, twice.
        cleaned.append(1)
  assert cleaned
