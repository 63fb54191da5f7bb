"""One attack in a forked child, with limits of memory and time: how it ended, and whether that is allowed."""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.errors import printable

MEMORY = 2 * 2**30  # bytes above what the prepared process has
SECONDS = 60
CRASHED = 70  # exit code after an exception that no command catches


class Ending(NamedTuple):
    """How an attack ended.

    right: whether this is allowed: a result (exit code 0 or 1), or one line of a user's error (2).
    what: "result", "refused", or what went wrong.
    output: what was printed.
    """

    right: bool
    what: str
    output: str


def run(attack: Callable[[], int | None], log: Path) -> Ending:
    """Runs a command in a child process.

    Args:
        attack: the command; returns its exit code.
        log: file for what it prints.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        _run_in_child(attack, log)
    status = _wait(process)
    output = log.read_text(encoding="utf-8", errors="replace")
    if status is None:
        return Ending(False, f"more than {SECONDS} seconds", output)
    if os.WIFSIGNALED(status):
        return Ending(False, f"killed by {signal.Signals(os.WTERMSIG(status)).name}", output)
    return judge(os.waitstatus_to_exitcode(status), output)


def judge(code: int, output: str) -> Ending:
    """Whether exit code and output are those of a result, or of one line of a user's error."""
    errors = [line for line in output.splitlines() if "error: " in line]
    if "Traceback" in output or code == CRASHED:
        return Ending(False, f"traceback: {output.strip().splitlines()[-1][:200]}", output)
    if printable(output.replace("\r", "").replace("\t", "")) != output.replace("\r", "").replace("\t", ""):
        return Ending(False, "escape codes in the output", output)
    if code == 2 and len(errors) == 1:
        return Ending(True, "refused", output)
    if code in (0, 1):
        return Ending(True, "result", output)
    return Ending(False, f"exit code {code} with {len(errors)} lines of errors", output)


def processes(session: int) -> dict[int, float]:
    """The processes of a session, with the processor time of each in seconds."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found[int(entry.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def _run_in_child(attack: Callable[[], int | None], log: Path) -> None:
    code = CRASHED
    try:
        os.setsid()  # so that its own children are killed with it
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)  # pytest's own streams lead elsewhere
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = attack() or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else CRASHED
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _wait(process: int) -> int | None:
    """The status of a child, or None after the limit of time, when it is killed.

    The limit counts processor time, and time in which the child does nothing: a busy machine fails no attack.
    """
    pause, spent, last = 0.002, 0.0, time.monotonic()
    while spent < SECONDS and time.monotonic() < last + SECONDS:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return status
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
        if time.monotonic() > last + 5 and (now := sum(processes(process).values())) != spent:
            spent, last = now, time.monotonic()
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None
