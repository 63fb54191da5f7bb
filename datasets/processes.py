"""Processes that load or prepare data: they end with the process that started them, however that ends."""

import multiprocessing
import os
import threading
import time


def end_with_parent() -> None:
    """Ends this process soon after the one that started it, even if that was killed. For the start of a worker.

    A pool or a loader tells its processes to end, but not when its own process gets SIGTERM or SIGKILL: they would
    finish their work, and then wait for more without an end.
    """
    threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(starter: int) -> None:
    """A forked process sees it by its parent's number. Its siblings hold the parent's end of the pipe open.

    With Python's fork server, the default from Python 3.14 on, the parent is the server, which outlives the process
    that asked for this one. The pipe closes when that process ends.
    """
    asked_for = multiprocessing.parent_process()
    while os.getppid() == starter and (asked_for is None or asked_for.is_alive()):
        time.sleep(1)
    os._exit(1)
