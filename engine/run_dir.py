"""Output directory of a run: exclusive lock, archive of the previous run."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from common.errors import UserError, describe
from engine.checkpoint import newest_first
from engine.distributed import Process, all_gather

CHECKPOINTS, FIGURES, FIGURES_TABLE = "checkpoints", "metrics.jsonl", "metrics.csv"
# All that a training, and a test of its network, writes; other files of a folder are not touched.
_TRAINING_FILES = (CHECKPOINTS, FIGURES, FIGURES_TABLE, "log.txt", "tensorboard", "config.yml", "wandb_id")
_TEST_FILES = ("scores.npz", "scores.parts", "report.html")
_LOCKS_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def lock_output_dir(folder: Path, process: Process) -> Iterator[None]:
    """Inside, no other training can write to the folder. All processes must enter; rank 0 has the lock.

    Raises:
        UserError: in all processes; another training writes there, or the folder cannot be written.
    """
    lock: int | None = None
    problem = ""
    if process.is_main:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            # lockf: workers of the loader, which may live a moment longer than this process, do not inherit the lock.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            problem = (
                f"another training writes to {folder}: wait for its end, or choose another output_dir; if it is dead "
                f"and its node keeps the lock, delete {folder}/.lock"
            )
        except OSError as error:
            if lock is None or error.errno not in _LOCKS_UNSUPPORTED:
                problem = not_writable(folder, error)
    try:
        if problem := all_gather(problem)[0]:
            raise UserError(problem)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def not_writable(folder: Path, error: OSError) -> str:
    return f"output_dir {folder} is not a folder to write in: {describe(error)}"


def archive_previous_run(folder: Path, kept: Path | None) -> str:
    """Moves what an earlier training left into a folder `earlier_N` of the same folder.

    Then everything found there later, for example after a kill, belongs to the training that starts now.

    Args:
        folder: output_dir.
        kept: the checkpoint that the training resumes from; if it lies in this folder, only newer ones are moved.

    Returns:
        A line for the log, or nothing.
    """
    found = list(newest_first(folder / CHECKPOINTS))
    if kept is not None and kept.resolve().parent == (folder / CHECKPOINTS).resolve():
        newer = takewhile(lambda path: not path.samefile(kept), found)
        moved = [path.relative_to(folder) for path in newer]
    else:
        moved = [Path(name) for name in _TRAINING_FILES + _TEST_FILES if (folder / name).exists()]
        if not found and Path(FIGURES) not in moved:
            moved = []  # no training has got far enough to leave a result
    if not moved:
        return ""
    number = 1
    while (aside := folder / f"earlier_{number}").exists():
        number += 1
    for path in moved:
        (aside / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).rename(aside / path)
    return f"what an earlier training left in {folder} is in {aside} now"
