"""The processes that train the networks of benchmarks/real_motion.py, each with one thread and all videos in memory."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from benchmarks.motion_cells import Budget, run_cell, steps_of
from benchmarks.motion_data import Split, Task, Video
from datasets.processes import end_with_parent

Note = TypeVar("Note")


@dataclass(frozen=True)
class Trial:
    """A network to train and to test."""

    task: Task
    split: Split
    contestant: str
    stem: int
    seed: int
    rate: float


class Crew:
    """Trains networks, several at once, and shows the steps.

    Args:
        workers: processes. 1: this process trains.
        videos: all of them; each process gets a copy.
        budget: of the networks.
        stop_after: hours from now, after which no network is started; None: no limit.
    """

    def __init__(self, workers: int, videos: Sequence[Video], budget: Budget, stop_after: float | None) -> None:
        self._workers, self._videos, self._budget = workers, videos, budget
        self._end = None if stop_after is None else time.monotonic() + 3600 * stop_after
        self._context = get_context("spawn")  # a forked process would inherit locks of OpenCV's threads
        self._steps = self._context.Value("q", 0)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def finished(self, trials: Sequence[tuple[Trial, Note]], title: str) -> Iterator[tuple[tuple[Trial, Note], Any]]:
        """Trains all, in order. Yields each with what `run_cell` says of it, as soon as it has finished."""
        if not trials:
            return
        self._steps.value = 0
        total = sum(steps_of(trial.split, self._budget) for trial, _ in trials)
        with tqdm(total=total, desc=title, unit="step", smoothing=0.05, dynamic_ncols=True) as bar:
            yield from self._here(trials, bar) if self._workers == 1 else self._in_pool(trials, bar)

    def _in_time(self, trials: Iterable[tuple[Trial, Note]]) -> Iterator[tuple[Trial, Note]]:
        for each in trials:
            if self._end is not None and time.monotonic() > self._end:
                return
            yield each

    def _here(self, trials: Iterable[tuple[Trial, Note]], bar: Any) -> Iterator[tuple[tuple[Trial, Note], Any]]:
        for trial, note in self._in_time(trials):
            yield (trial, note), _run(trial, self._videos, self._budget, bar.update)

    def _in_pool(self, trials: Iterable[tuple[Trial, Note]], bar: Any) -> Iterator[tuple[tuple[Trial, Note], Any]]:
        if self._pool is None:
            start = (self._videos, self._budget, self._steps)
            self._pool = ProcessPoolExecutor(self._workers, self._context, initializer=_start, initargs=start)
        waiting: dict[Future[dict[str, Any]], tuple[Trial, Note]] = {}
        coming = self._in_time(trials)
        while True:
            # No more are handed over than are worked on, so that nothing starts late.
            while len(waiting) < self._workers and (each := next(coming, None)) is not None:
                waiting[self._pool.submit(_work, each[0])] = each
            if not waiting:
                return
            done, _ = wait(waiting, timeout=2, return_when=FIRST_COMPLETED)
            bar.update(self._steps.value - bar.n)
            for future in done:
                yield waiting.pop(future), future.result()


def _run(trial: Trial, videos: Sequence[Video], budget: Budget, progress: Callable[[], object]) -> dict[str, Any]:
    return run_cell(
        trial.task,
        trial.split,
        videos,
        budget,
        contestant=trial.contestant,
        stem_frames=trial.stem,
        seed=trial.seed,
        rate=trial.rate,
        progress=progress,
    )


# ---- In the processes -----------------------------------------------------------------------------------------------

_train: Callable[[Trial], dict[str, Any]]  # what this process does; a pool's function finds it by name alone


def _start(videos: Sequence[Video], budget: Budget, steps: Any) -> None:
    global _train
    torch.set_num_threads(1)
    end_with_parent()

    def count() -> None:
        with steps.get_lock():
            steps.value += 1

    _train = partial(_run, videos=videos, budget=budget, progress=count)


def _work(trial: Trial) -> dict[str, Any]:
    return _train(trial)
