"""Ctrl-C, SIGTERM and a closed terminal: a run that is asked to stop saves its state and ends in order."""

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from engine.distributed import any_rank

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_OF_ONE_REQUEST = 3


class Interrupted(Exception):
    """The run ends because it was asked to."""


class StopSignals:
    """Records the first of SIGNALS inside a `with` block; a later one has its usual effect.

    Signals within three seconds of the first count as the same request: a launcher passes on what its processes have
    received as well. Only the main thread of a program can do so; in others the signals keep their effect.

    A signal that was ignored before stays ignored: `nohup` ignores SIGHUP, so that a run outlives its terminal. SIGINT
    is recorded nevertheless. A shell ignores it for each command in the background, which the user has not asked for.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._first = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        try:
            for number in SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
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

    def on_any_rank(self) -> bool:
        """Whether at least one process was asked to stop. All of them must ask."""
        return any_rank(self.received is not None)


def ignore_stop_signals() -> None:
    """For a loader's worker: Ctrl-C reaches it as well, and its training process tells it when to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
