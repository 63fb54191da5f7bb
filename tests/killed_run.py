"""A rank of train_val_3d.py which kills the last rank of its run: python -m tests.killed_run LINE [ARGUMENTS...].

It does so before it goes on from printing this line, which a test that only reads its output may be too late for.
torchrun starts the ranks again, and these live.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import train_val_3d


def process_of_rank(launcher: int, rank: int) -> int:
    """The process number of a rank among the children of torchrun."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


class _KillsAt:
    """Standard output, whose reader must see the line as well."""

    def __init__(self, line: str) -> None:
        self._line, self._output = line, sys.stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)

    def write(self, text: str) -> int:
        written = self._output.write(text)
        if self._line in text:
            self._output.flush()
            os.kill(process_of_rank(os.getppid(), int(os.environ["WORLD_SIZE"]) - 1), signal.SIGKILL)
        return written


if __name__ == "__main__":
    _, line, *arguments = sys.argv
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        sys.stdout = _KillsAt(line)
    sys.exit(train_val_3d.main(arguments))
