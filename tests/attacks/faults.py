"""Faults of machines while a network trains: killed processes, a full disk, a folder that vanishes.

    python -m tests.attacks.faults [--kills 30] [--torchrun 6] [--full 20] [--vanished 5] [--seed N]

Each fault strikes a training of its own at a random moment. The training must end by itself, in one line where it can
still speak. Then it is resumed, and must end with the very bits of a training that nothing has disturbed.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import train_val_3d
from tests.attacks.child import Ending, processes, run
from tests.script import ROOT, arguments, weights, write_data

RANKS = 2
PATIENCE = 180  # seconds; processes whose torchrun is killed while they start look for it for one minute
_OPTIONS = ("logging.save_iter_freq=1", "dataset.num_workers=1", "execution.timeout=20", "deterministic=true")

_MARK = "SIFA_FAULT"
#: Starts a training with data, output_dir, a log and further arguments; returns the id of its launcher.
Launch = Callable[..., int]


class FaultError(Exception):
    """A training ended otherwise than it must after a fault."""


def train(data: Path, output: Path, *more: str) -> int:
    return train_val_3d.main(arguments(data, output, *_OPTIONS, *more))


def _start_session(log: Path) -> None:
    """This process leads a session of its own, and prints to the end of the log."""
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)


def launch(data: Path, output: Path, log: Path, *more: str) -> int:
    """Forks a launcher, which forks the ranks as torchrun does, and ends all when one is lost. Returns its id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sys.stdout.flush()
    launcher = os.fork()
    if launcher == 0:
        _start_session(log)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        common = {"WORLD_SIZE": RANKS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
        ranks = {}
        for rank in range(RANKS):
            if (process := os.fork()) == 0:
                os.environ.update({name: str(value) for name, value in {**common, "RANK": rank}.items()})
                code = 70
                try:
                    code = train(data, output, *more)
                finally:
                    sys.stdout.flush()
                    os._exit(code)
            ranks[process] = rank
        os._exit(_wait_for(ranks))
    return launcher


def launch_torchrun(data: Path, output: Path, log: Path, *more: str) -> int:
    """The same with torchrun itself, whose processes start slowly and have sessions of their own. Returns its id."""
    launcher = os.fork()
    if launcher == 0:
        _start_session(log)
        os.environ[_MARK] = str(os.getpid())  # by which its processes are found when it is dead
        os.chdir(ROOT)
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={RANKS}", "train_val_3d.py"]
        os.execv(sys.executable, [sys.executable, *command, *arguments(data, output, *_OPTIONS, *more)])
    return launcher


def started_by(launcher: int) -> set[int]:
    """The launcher and its processes, as far as they live."""
    mark, found = f"{_MARK}={launcher}\0".encode(), set(processes(launcher))
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in file.read_bytes():
                found.add(int(file.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def _wait_for(ranks: dict[int, int]) -> int:
    """What torchrun does: when one rank fails the others are asked to end, and killed if they do not."""
    result, asked = 0, 0.0
    while ranks:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process:
            ranks.pop(process, None)
            result = result or int(status != 0)
        if result and not asked:
            asked = time.monotonic()
        for other in ranks if asked else ():
            os.kill(other, signal.SIGKILL if time.monotonic() > asked + 5 else signal.SIGTERM)
        time.sleep(0.05 if not asked else 1)
    return result


def children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(number) for number in text.split()]


def kill_one(launcher: int, draw: random.Random) -> str:
    """Kills the launcher, a rank or a worker of a loader."""
    ranks = children(launcher)
    workers = [worker for rank in ranks for worker in children(rank)]
    kind, among = draw.choice(
        [(k, a) for k, a in (("launcher", [launcher]), ("rank", ranks), ("worker", workers)) if a]
    )
    try:
        os.kill(draw.choice(among), signal.SIGKILL)
    except ProcessLookupError:
        return "nothing, it had ended"
    return kind


def wait_for_all(launcher: int) -> int | None:
    """The status of the launcher, when all of its processes have ended.

    Raises:
        FaultError: some have not.
    """
    end, status = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        process, found = os.waitpid(launcher, os.WNOHANG) if status is None else (0, 0)
        status = found if process else status
        if status is not None and not started_by(launcher):
            return status
        time.sleep(0.1)
    left = started_by(launcher)
    for process in left:
        os.kill(process, signal.SIGKILL)
    raise FaultError(f"{len(left)} processes are still there after {PATIENCE} s")


def check_same(output: Path, expected: dict[str, torch.Tensor]) -> None:
    found = weights(output)
    if differing := [name for name, value in expected.items() if not torch.equal(found[name], value)]:
        raise FaultError(f"{len(differing)} weights differ from those of a training without a fault")


def kill(
    data: Path, folder: Path, expected: dict[str, torch.Tensor], seconds: float, start: Launch, draw: random.Random
) -> str:
    """Kills one process at a random moment, and resumes."""
    output, log = folder / "out", folder / "log.txt"
    launcher = start(data, output, log)
    time.sleep(draw.uniform(0, seconds))
    victim = kill_one(launcher, draw)
    wait_for_all(launcher)
    if wait_for_all(start(data, output, log, "--resume=auto")) != 0:
        raise FaultError(f"the training could not be resumed:\n{log.read_text()}")
    check_same(output, expected)
    return victim


def in_a_child(command: Callable[[], int], log: Path, what: str) -> Ending:
    ending = run(command, log)
    if not ending.right:
        raise FaultError(f"{what}: {ending.what}\n{ending.output}")
    return ending


def fill_disk(data: Path, folder: Path, expected: dict[str, torch.Tensor], draw: random.Random) -> str:
    """No file may grow beyond a random size, as if the disk were full there; then the disk has space again."""
    limit = int(10 ** draw.uniform(3.5, 6.2))

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return train(data, folder / "out", "dataset.num_workers=0")

    first = in_a_child(limited, folder / "log.txt", f"files of at most {limit} bytes")
    in_a_child(one_rank(data, folder / "out", "--resume=auto"), folder / "log2.txt", "resumed")
    check_same(folder / "out", expected)
    return first.what


def one_rank(data: Path, output: Path, *more: str) -> Callable[[], int]:
    return lambda: train(data, output, "dataset.num_workers=0", *more)


def remove_folder(data: Path, folder: Path, seconds: float, draw: random.Random) -> str:
    """output_dir vanishes at a random moment."""
    delay = draw.uniform(0, seconds)
    remover = os.fork()
    if remover == 0:
        time.sleep(delay)
        shutil.rmtree(folder / "out", ignore_errors=True)
        os._exit(0)
    ending = in_a_child(one_rank(data, folder / "out"), folder / "log.txt", "output_dir was removed")
    os.waitpid(remover, 0)
    return ending.what


def undisturbed(data: Path, output: Path, start: Launch) -> tuple[dict[str, torch.Tensor], float]:
    """The weights after a training of two ranks, and its seconds."""
    began, log = time.monotonic(), output.with_suffix(".log")
    if wait_for_all(start(data, output, log)) != 0:
        raise FaultError(f"a training without a fault fails:\n{log.read_text()}")
    return weights(output), time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--torchrun", type=int, default=6, help="kills of torchrun or one of its processes")
    parser.add_argument("--full", type=int, default=20)
    parser.add_argument("--vanished", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data")
        data = folder / "data"
        two, seconds = undisturbed(data, folder / "two", launch)
        slow = undisturbed(data, folder / "slow", launch_torchrun)[1] if args.torchrun else 0.0
        in_a_child(one_rank(data, folder / "one"), folder / "log.txt", "a training without a fault")
        one = weights(folder / "one")
        kinds: dict[str, tuple[int, Callable[[Path, random.Random], str]]] = {
            "kill": (args.kills, lambda own, draw: kill(data, own, two, seconds, launch, draw)),
            "torchrun": (args.torchrun, lambda own, draw: kill(data, own, two, slow, launch_torchrun, draw)),
            "full": (args.full, lambda own, draw: fill_disk(data, own, one, draw)),
            "vanished": (args.vanished, lambda own, draw: remove_folder(data, own, seconds, draw)),
        }
        for kind, (count, strike) in kinds.items():
            for seed in range(args.seed, args.seed + count):
                own = folder / f"{kind}{seed}"
                own.mkdir()
                try:
                    print(f"{kind} {seed}: {strike(own, random.Random(seed))}", flush=True)
                except FaultError as error:
                    failed += 1
                    print(f"{kind} {seed} FAILED: {error}", flush=True)
                shutil.rmtree(own, ignore_errors=True)
    print(f"{failed} failed of {args.kills + args.torchrun + args.full + args.vanished}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
