"""Signals: which ones stop a training, and which ones were to be ignored."""

import os
import signal

import pytest

from openaff.utils.interrupt import StopRequest

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def inherited():
    """Set a signal's handler, and put back what was there before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield signal.signal
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_one_acts_as_usual(inherited, number):
    seen = []
    inherited(number, lambda *_: seen.append(number))
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.signal == number.name and seen == []
        os.kill(os.getpid(), number)
        assert seen == [number]
    os.kill(os.getpid(), number)
    assert seen == [number] * 2


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_was_to_be_ignored_stays_ignored(inherited, number):
    inherited(number, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.signal is None
        assert signal.getsignal(number) == signal.SIG_IGN
    assert signal.getsignal(number) == signal.SIG_IGN
