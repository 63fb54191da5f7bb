"""The processes of loaders: they end in order, and what the system has too little of for them is said."""

import errno
import multiprocessing
import multiprocessing.connection
import multiprocessing.queues
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from common.errors import OneProcessError
from engine.signals import ignore_stop_signals

# Clips go from process to process through files in /dev/shm. A worker that cannot pass one on ends with this exit code.
_SHORTAGES = {
    errno.ENOSPC: "/dev/shm is full (in a container: --shm-size)",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "the memory is full",
    errno.EAGAIN: "there are too many processes (ulimit -u)",
}
_OTHER = 1
_PINNING_FAILED = "Pin memory thread exited unexpectedly"  # for a GPU a thread of PyTorch's takes the clips
_SECONDS_TO_END = 5.0  # for a process that has closed its connections
_CRASHES = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)
_loaders: WeakSet[DataLoader] = WeakSet()


def watch(loader: DataLoader) -> DataLoader:
    """Lets `end_workers` and `reason_of_end` know a loader."""
    _loaders.add(loader)
    return loader


def start_worker(start: Callable[[int], None], worker: int) -> None:
    """For DataLoader's worker_init_fn: a worker ignores the signals to stop, and ends if it cannot pass on a clip.

    Python would print the error, lose the clip, and let the training wait for it forever.

    Args:
        start: what else to call with the number of the worker.
        worker: its number.
    """
    ignore_stop_signals()
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(lambda error, clip: _give_up(error))  # type: ignore[attr-defined]
    sys.excepthook = lambda kind, error, trace: _give_up(error)
    start(worker)


def _give_up(error: BaseException) -> None:
    os._exit(_shortage(error) or _OTHER)


def _shortage(error: BaseException) -> int:
    """The key of _SHORTAGES that an error is about, or 0. PyTorch turns errors of the system into texts."""
    number = error.errno if isinstance(error, OSError) else None
    return next((key for key in _SHORTAGES if key == number or os.strerror(key) in str(error)), 0)


def start_workers(loader: Any) -> Iterator[Any]:
    """`iter(loader)`.

    Raises:
        OneProcessError: the system has too little of something for the processes. Those that started have ended.
    """
    try:
        return iter(loader)
    except OSError as error:
        if not (number := _shortage(error)):
            raise
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(half := frame.f_locals.get("self"), _MultiProcessingDataLoaderIter):
                half._shutdown = True  # nothing is left to do when it is deleted
                for worker in getattr(half, "_workers", []):
                    worker.kill()
                    worker.join()
        raise OneProcessError(f"the processes of the loader cannot start: {_way_out(number)}") from None


def next_batch(batches: Iterator[Any]) -> Any:
    """The next batch of an iterator that `start_workers` gave; None after the last.

    A worker that ends while this process takes a clip from it closes the connection before PyTorch sees that it has
    ended. The error of the connection would hide the reason.

    Raises:
        RuntimeError: a worker has ended, in the words of PyTorch.
    """
    try:
        return next(batches, None)
    except (EOFError, ConnectionError, RuntimeError) as error:
        other = isinstance(error, RuntimeError) and str(error) != _PINNING_FAILED
        if other or not isinstance(batches, _MultiProcessingDataLoaderIter):
            raise
        closed = multiprocessing.connection.wait([worker.sentinel for worker in batches._workers], _SECONDS_TO_END)
        if not closed:
            raise
        ended = [worker for worker in batches._workers if worker.sentinel in closed]
        for worker in ended:
            worker.join(_SECONDS_TO_END)  # its exit code comes after its connections are closed
        pids = ", ".join(str(worker.pid) for worker in ended)
        raise RuntimeError(f"DataLoader worker (pid(s) {pids}) exited unexpectedly") from error


def end_workers() -> None:
    """Ends the workers of every loader.

    They ignore the signals to stop. While something refers to a loader, such as the traceback of an error, Python would
    wait for them forever.
    """
    for iterator in _iterators():
        iterator._shutdown_workers()


def reason_of_end(error: RuntimeError) -> tuple[str, int] | None:
    """The message and the exit code for an error of PyTorch about the processes of a loader; None for other errors."""
    text, number = str(error), _shortage(error)
    if text.startswith("DataLoader worker"):
        codes = [worker.exitcode for iterator in _iterators() for worker in iterator._workers]
        number = next((code for code in codes if code in _SHORTAGES), number)
    elif not number or not ("shared memory" in text or text.startswith("Too many open files")):
        return None
    if number:
        return f"the loader cannot pass on its clips: {_way_out(number)}", 2
    cause = "the memory, or /dev/shm, may be too small for dataset.num_workers"
    if any(-crash in codes for crash in _CRASHES):
        cause += "; or a file of the data is damaged, which tools.check_dataset finds"
    return f"{text.splitlines()[0].rstrip('.')}: {cause}", 1


def _way_out(number: int) -> str:
    return f"{_SHORTAGES[number]}; raise the limit, or lower dataset.num_workers"


def _iterators() -> Iterator[_MultiProcessingDataLoaderIter]:
    for loader in list(_loaders):
        if isinstance(loader._iterator, _MultiProcessingDataLoaderIter):
            yield loader._iterator
