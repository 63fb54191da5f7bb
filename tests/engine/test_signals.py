"""Signals that ask a run to stop: the first is noted, its echoes are not taken for a second."""

import signal

import pytest

from engine import signals
from engine.signals import StopSignals


def test_the_first_signal_is_noted_and_its_echo_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        assert not signals.on_any_rank()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert signals.received == signal.SIGTERM
        assert signals.on_any_rank()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_request_acts_as_it_always_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SECONDS_OF_ONE_REQUEST", -1)
    with StopSignals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
