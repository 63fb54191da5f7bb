"""Processes of a pool: they end with the process that started them, however that ends."""

import os
import threading
import time


def end_with_parent() -> None:
    """Ends this process soon after its parent, even if the parent was killed. For the start of a pool's process.

    A pool tells its processes to end, but not when its own process gets SIGTERM or SIGKILL: they would finish their
    work, and then wait for more without an end.
    """
    threading.Thread(target=_wait_for_parent, args=(os.getppid(),), daemon=True).start()


def _wait_for_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
