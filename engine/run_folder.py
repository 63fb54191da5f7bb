"""The folder of a training, output_dir: held by one training at a time, with nothing of an earlier one in its place."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from engine.checkpoint import newest_first
from engine.distributed import Process, gather
from engine.errors import UserError

CHECKPOINTS, FIGURES = "checkpoints", "metrics.jsonl"
# All that a training, and a test of its network, leaves; other files of a folder stay.
_OF_A_TRAINING = (CHECKPOINTS, FIGURES, "log.txt", "tensorboard", "config.yml", "wandb_id")
_OF_ITS_TEST = ("scores.npz", "scores.parts", "report.html")
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def held(folder: Path, process: Process) -> Iterator[None]:
    """Keeps other trainings out of a folder. All processes must enter it; rank 0 holds the lock.

    Raises:
        UserError: in all processes; another training writes there, or the folder cannot be written.
    """
    lock: int | None = None
    problem = ""
    if process.is_main:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            # Of this process alone: workers of the loader, which may outlive it for a moment, do not inherit it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = (
                f"another training writes to {folder}: wait for its end, or choose another output_dir; if it is dead "
                f"and its node keeps the lock, delete {folder}/.lock"
            )
        except OSError as error:
            if lock is None or error.errno not in _NO_LOCKS_HERE:
                problem = not_writable(folder, error)
    try:
        if problem := gather(problem)[0]:
            raise UserError(problem)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def not_writable(folder: Path, error: OSError) -> str:
    return f"output_dir {folder} is not a folder to write in: {error}"


def set_aside(folder: Path, kept: Path | None) -> str:
    """Moves what an earlier training left into a folder `earlier_N` of the same folder.

    So that whatever is found in its place, after a kill say, is of the training that begins now.

    Args:
        kept: the checkpoint that it goes on from; where that is the folder's own, only newer ones are moved.

    Returns:
        A line for the log, or nothing.
    """
    found = list(newest_first(folder / CHECKPOINTS))
    if kept is not None and kept.resolve().parent == (folder / CHECKPOINTS).resolve():
        newer = takewhile(lambda path: not path.samefile(kept), found)
        moved = [path.relative_to(folder) for path in newer]
    else:
        moved = [Path(name) for name in _OF_A_TRAINING + _OF_ITS_TEST if (folder / name).exists()]
        if not found and Path(FIGURES) not in moved:
            moved = []  # no training has come far enough to leave something
    if not moved:
        return ""
    number = 1
    while (aside := folder / f"earlier_{number}").exists():
        number += 1
    for path in moved:
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).rename(aside / path)
    return f"what an earlier training left in {folder} is in {aside} now"
