"""Ctrl-C and SIGTERM: a run that is asked to stop saves what it has and ends in order."""

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from engine.distributed import any_process

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_OF_ONE_REQUEST = 3


class Stopped(Exception):
    """The run ends because it was asked to."""


class StopSignals:
    """Notes the first SIGINT or SIGTERM while it is entered; one that comes later acts as it always does.

    Not one that comes at once: a launcher passes on what its processes have got as well.

    Only the main thread of a program can do so; elsewhere the signals are left alone.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        try:
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        except ValueError:
            pass
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._first = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._first > SECONDS_OF_ONE_REQUEST:
            self._restore()
            signal.raise_signal(number)

    def anywhere(self) -> bool:
        """Whether one of the processes, at least, was asked to stop; all of them must ask."""
        return any_process(self.received is not None)


def ignore_stop_signals() -> None:
    """For a loader's worker: Ctrl-C reaches it as well, and its training process tells it when to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
