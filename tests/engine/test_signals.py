"""Signals that ask a run to stop: the first is noted, its echoes are not taken for a second."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def handled_by(number: signal.Signals, handler: Any) -> Iterator[None]:
    """The tests may run in the background, where a shell ignores SIGINT, or under nohup."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_nohup_keeps_its_effect() -> None:
    with handled_by(signal.SIGHUP, signal.SIG_IGN):
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.received is None
            signal.raise_signal(signal.SIGTERM)
            assert signals.received == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_closed_terminal_is_noted() -> None:
    with handled_by(signal.SIGHUP, signal.SIG_DFL), StopSignals() as signals:
        signal.raise_signal(signal.SIGHUP)
        assert signals.received == signal.SIGHUP


def test_a_run_in_the_background_can_be_interrupted() -> None:
    with handled_by(signal.SIGINT, signal.SIG_IGN), StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT


def test_a_second_request_acts_as_it_always_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SECONDS_OF_ONE_REQUEST", -1)
    with handled_by(signal.SIGINT, signal.default_int_handler), StopSignals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
