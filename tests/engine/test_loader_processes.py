"""A loader whose processes lack something ends a run in one line: no traceback, no wait without end."""

import errno
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, SequentialSampler

from engine import loader_processes
from engine.launch import run_to_the_end
from engine.prefetch import DevicePrefetcher, build_loader

Sample = tuple[torch.Tensor, int, int]


class Clips(Dataset[Sample]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        if index == 5 and os.environ.get("TEST_KILLS_WORKER"):
            os.kill(os.getpid(), int(os.environ["TEST_KILLS_WORKER"]))
        return torch.zeros(3, 2, 4, 4), 0, index


def read(start_worker: Callable[[int], None] = lambda worker: None) -> tuple[int, list[Any]]:
    """The exit code of a run that reads all clips, and the processes that it leaves."""

    def run(signals: object) -> None:
        dataset, device = Clips(), torch.device("cpu")
        sampler = SequentialSampler(dataset)
        loader = build_loader(dataset, sampler, 2, workers=2, device=device, start_worker=start_worker)
        assert len(list(DevicePrefetcher(loader, device, lambda clip: clip))) == 4

    return run_to_the_end(run, kept="nothing"), multiprocessing.active_children()


def few_files(worker: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_a_worker_that_cannot_pass_on_its_clips(capfd: pytest.CaptureFixture[str]) -> None:
    assert read() == (0, [])
    assert read(few_files) == (2, [])
    assert capfd.readouterr().err == (
        "error: the loader cannot pass on its clips: too many files are open (ulimit -n); raise the limit, or lower "
        "dataset.num_workers\n"
    )


def test_workers_that_cannot_start(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    start = multiprocessing.context.ForkProcess.start
    started: list[Any] = []

    def start_one(process: Any) -> None:
        if started:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        started.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", start_one)
    assert read() == (2, [])
    assert len(started) == 1, "one worker was there, and has ended"
    assert capfd.readouterr().err == (
        "error: the processes of the loader cannot start: /dev/shm is full (in a container: --shm-size); raise the "
        "limit, or lower dataset.num_workers\n"
    )


@pytest.mark.parametrize(("number", "hint"), [(signal.SIGKILL, ""), (signal.SIGBUS, "tools.check_dataset finds")])
def test_a_killed_worker(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals, hint: str
) -> None:
    monkeypatch.setenv("TEST_KILLS_WORKER", str(int(number)))
    assert read() == (1, [])
    error = capfd.readouterr().err.splitlines()[-1].lstrip("\0")
    assert error.startswith("error: DataLoader worker (pid")
    assert ": the memory, or /dev/shm, may be too small" in error
    assert hint in error


CONNECTION_ERRORS = (
    EOFError(),
    ConnectionResetError(),
    ConnectionRefusedError(),
    BrokenPipeError(),
    RuntimeError("Pin memory thread exited unexpectedly"),
)


def cut_connections(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def cut(address: object) -> None:
        raise error

    monkeypatch.setattr("multiprocessing.resource_sharer._resource_sharer.get_connection", cut)


def end_soon(worker: int) -> None:
    if worker == 1:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()


@pytest.mark.parametrize("error", CONNECTION_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("told", [True, False], ids=["told by a signal", "the signal came at a bad time"])
def test_a_worker_that_ends_while_it_passes_on_a_clip(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception, told: bool
) -> None:
    """The connection breaks before the process counts as ended: the reason is said, and not the connection's error.

    PyTorch raises its own error in a handler of SIGCHLD. Python drops it where no error can be raised, as in a callback
    of the garbage collector.
    """
    cut_connections(monkeypatch, error)
    if not told:
        monkeypatch.setattr("torch.utils.data._utils.signal_handling._error_if_any_worker_fails", lambda: None)
    assert read(end_soon) == (1, [])
    last = capfd.readouterr().err.splitlines()[-1].lstrip("\0")
    assert last.startswith("error: DataLoader worker (pid")
    assert last.endswith(": the memory, or /dev/shm, may be too small for dataset.num_workers")


def test_a_broken_connection_to_a_worker_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_connections(monkeypatch, ConnectionResetError())
    monkeypatch.setattr(loader_processes, "_SECONDS_TO_END", 0.1)
    with pytest.raises(ConnectionResetError):
        read()
    assert not multiprocessing.active_children()


def test_workers_are_forked_where_python_would_use_its_server() -> None:
    """The server ends with the first signal to the group of the run, and its workers see their parent's end."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        assert read() == (0, [])
    finally:
        multiprocessing.set_start_method(before, force=True)
