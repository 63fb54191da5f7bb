"""Work on many videos in several processes. A video that crashes the decoder costs this video alone."""

import signal
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from datasets.preparation.extraction import extract_video
from datasets.preparation.records import ExtractionJob
from datasets.processes import end_with_parent

Key = TypeVar("Key", bound=Hashable)
Job = TypeVar("Job")
Result = TypeVar("Result")
CRASHED = "the decoder crashed on it, or was killed"


def extract_in_processes(jobs: dict[str, ExtractionJob], workers: int) -> Iterator[tuple[str, int, str]]:
    """Extracts videos in several processes.

    Args:
        jobs: by the path of the video.
        workers: processes at most.

    Returns:
        Path, number of frames and problem of each video as soon as it is done, see `extract_video`.
    """
    for path, result in run_in_processes(extract_video, jobs, workers):
        yield path, *(result or (0, CRASHED))


def run_in_processes(
    function: Callable[[Job], Result], jobs: Mapping[Key, Job], workers: int
) -> Iterator[tuple[Key, Result | None]]:
    """Calls a function for each job, in several processes.

    Args:
        function: that can be pickled.
        jobs: its arguments by a key.
        workers: processes at most.

    Returns:
        Key and result of each job as soon as it is done; None for a job that kills its process.
    """
    left = dict(jobs)
    if not left:
        return
    with ProcessPoolExecutor(min(workers, len(left)), initializer=_start_worker) as pool:
        try:
            futures = {pool.submit(function, job): key for key, job in jobs.items()}
            for future in as_completed(futures):
                key, result = futures[future], future.result()
                del left[key]
                yield key, result
        except BrokenProcessPool:
            pass
        except BaseException:  # Ctrl-C among them: jobs that have not begun are dropped
            pool.shutdown(cancel_futures=True)
            raise
    # A video that crashes the decoder breaks the whole pool. Halving the rest finds it.
    keys = list(left)
    if len(jobs) == 1 and keys:
        yield keys[0], None
        return
    middle = (len(keys) + 1) // 2
    for half in (keys[:middle], keys[middle:]):
        yield from run_in_processes(function, {key: left[key] for key in half}, workers)


def _start_worker() -> None:
    """A worker prints nothing, has one thread, and ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(0)
    end_with_parent()
