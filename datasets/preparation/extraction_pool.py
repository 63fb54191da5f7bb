"""Extraction in several processes. A video that crashes the decoder costs this video alone."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import cv2

from datasets.preparation.extraction import extract_video
from datasets.preparation.records import ExtractionJob


def extract_in_processes(jobs: dict[str, ExtractionJob], workers: int) -> Iterator[tuple[str, int, str]]:
    """Extracts videos in several processes.

    Args:
        jobs: by the path of the video.
        workers: processes at most.

    Returns:
        Path, number of frames and problem of each video as soon as it is done, see `extract_video`.
    """
    left = dict(jobs)
    if not left:
        return
    with ProcessPoolExecutor(min(workers, len(left)), initializer=_start_worker) as pool:
        try:
            futures = {pool.submit(extract_video, job): path for path, job in jobs.items()}
            for future in as_completed(futures):
                path, result = futures[future], future.result()
                del left[path]
                yield path, *result
        except BrokenProcessPool:
            pass
        except BaseException:  # Ctrl-C among them: jobs that have not begun are dropped
            pool.shutdown(cancel_futures=True)
            raise
    # A video that crashes the decoder breaks the whole pool. Halving the rest finds it.
    paths = list(left)
    if len(jobs) == 1 and paths:
        yield paths[0], 0, "the decoder crashed on it, or was killed"
        return
    middle = (len(paths) + 1) // 2
    for half in (paths[:middle], paths[middle:]):
        yield from extract_in_processes({path: left[path] for path in half}, workers)


def _start_worker() -> None:
    """A worker prints nothing, has one thread, and ends with its parent even if the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(0)
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
