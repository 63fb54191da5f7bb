"""Processes that compute in turns, so that a busy machine slows all alike, each with its own memory and libraries."""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]


class Worker:
    """A process that runs `python -m MODULE --work`, where the module calls `serve`.

    Args:
        module: of this project.
        folder: a checkout whose packages the process uses in place of this project's, except for `benchmarks`.
    """

    def __init__(self, module: str, folder: Path = ROOT) -> None:
        command = [sys.executable, "-m", module, "--work", str(folder.resolve())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def ask(self, *command: Any) -> Any:
        """The answer of the process to a command: both are values for JSON.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("answer "):  # libraries print as well
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(f"the process ended at the command {command}")

    def close(self) -> None:
        self._process.communicate()


def serve(answer: Callable[..., Any]) -> None:
    """In a `Worker`: answers commands until there are no more. Call it before other packages of the project load."""
    sys.path.insert(0, sys.argv[2])
    for line in sys.stdin:
        print("answer " + json.dumps(answer(*json.loads(line))), flush=True)


def run(main: Callable[[], int], answer: Callable[..., Any]) -> None:
    """The end of a module that measures: its command, or the part of a `Worker`."""
    if sys.argv[1:2] == ["--work"]:
        serve(answer)
    else:
        sys.exit(main())


def take_turns(workers: Mapping[str, Worker], rounds: Mapping[str, int], *command: Any) -> dict[str, list[float]]:
    """What the workers answer to a command, which they get one after the other, round by round.

    Args:
        workers: by name.
        rounds: how many of them each takes part in; the others go on without it.
        command: whose answer is a number.
    """
    answers: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(max(rounds.values())):
        names = [name for name in workers if number < rounds[name]]
        for name in names if number % 2 == 0 else reversed(names):
            answers[name].append(workers[name].ask(*command))
    return answers


def ratio(times: list[float], of: list[float]) -> float:
    """The median of the ratios of the rounds that both took part in."""
    return statistics.median(a / b for a, b in zip(times, of, strict=False))


def seconds(call: Callable[[], object], repeat: int = 1) -> float:
    """Seconds of a call: of the processor if PyTorch computes with one thread, else of the clock."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    for _ in range(repeat):
        call()
    return (clock() - began) / repeat


def peak_memory() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def conditions(threads: int) -> str:
    """A line about the machine, as it is when the measurement begins."""
    clock = "time of the processor" if threads == 1 else "time of the clock"
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}, {threads} threads, {clock}, {date.today()}, load average of the machine before: "
        f"{os.getloadavg()[0]:.1f}"
    )
