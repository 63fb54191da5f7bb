"""Processes: which of them this is, and what all of them know."""

import hashlib
import os
import signal
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from common.errors import OneProcessError, one_line

SHORTEST_START = timedelta(minutes=5)  # imports from a cold disk are slow, and slower on some nodes than on others
# torchrun's store is there before its processes are: if they do not find it, torchrun was killed while they started.
LONGEST_CONNECT = timedelta(minutes=1)
SECONDS_TO_ANSWER = 5  # of a computer to whose port one connects
SECONDS_TO_REPORT = 5  # from the first process that lost another to the last


@dataclass(frozen=True)
class Process:
    """This process, one of `world_size`. Rank 0 writes files and logs."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def is_main() -> bool:
    """Whether this process prints; known before `start` as well."""
    return os.environ.get("RANK", "").strip() in ("", "0")


def restarted() -> bool:
    """Whether torchrun started this process to replace a lost one (--max-restarts).

    On a node that joined as a replacement it did not, so the answer may differ between processes.
    """
    return _number("TORCHELASTIC_RESTART_COUNT", 0) > 0


def _number(variable: str, default: int) -> int:
    """A variable of the environment; one that is empty counts as not set."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise OneProcessError(f"{variable} in the environment must be a whole number, got {text!r}")
    return int(text)


def _rank_and_world_size() -> tuple[int, int]:
    """What a launcher set, checked: variables that an earlier run left behind must not change this one.

    Raises:
        OneProcessError: they contradict each other, or the launcher is missing that goes with them.
    """
    rank, world_size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if world_size < 1 or rank >= world_size:
        raise OneProcessError(
            f"RANK={rank} in the environment does not fit WORLD_SIZE={world_size}: start with torchrun, or unset both"
        )
    if world_size > 1:
        for variable in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            if not os.environ.get(variable, "").strip():
                raise OneProcessError(
                    f"WORLD_SIZE={world_size} in the environment, but {variable} is not set: start with torchrun, or "
                    "unset WORLD_SIZE"
                )
        _number("MASTER_PORT", 0)
    return rank, world_size


class _Control:
    """How processes agree: a group of its own over the CPU, so that agreeing never waits for a GPU.

    In the store that all processes share, each one also reports when it has lost another.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> None:
        self.store, self.rank, self.world_size = store, rank, world_size
        self.group: Any = dist.new_group(backend="gloo", timeout=timeout)
        store.set(f"host of {rank}", socket.gethostname())

    def silent_ranks(self) -> list[str]:
        """Reports this process. Returns the processes that do not report within some seconds, with their hosts."""
        self.store.set(f"gave up {self.rank}", "")
        silent, last = list(range(self.world_size)), time.monotonic() + SECONDS_TO_REPORT
        while silent and time.monotonic() < last:
            silent = [rank for rank in silent if not self.store.check([f"gave up {rank}"])]
            time.sleep(0.1)
        return [f"rank {rank} on {self.store.get(f'host of {rank}').decode()}" for rank in silent]


_control: _Control | None = None


def start(local_rank: int | None = None, timeout: timedelta = timedelta(minutes=30)) -> Process:
    """Joins the processes that torchrun or torch.distributed.launch started; without either there is one process.

    Args:
        local_rank: what the launcher passed as --local-rank, if it did; else LOCAL_RANK of the environment.
        timeout: how long the processes wait for one of them before they give up: see `lost_processes`.

    Raises:
        OneProcessError: the environment contradicts itself, or another process does not come.
    """
    global _control
    rank, world_size = _rank_and_world_size()
    if local_rank is None:
        local_rank = _number("LOCAL_RANK", 0)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world_size > 1:
        if "TORCHELASTIC_RUN_ID" in os.environ:  # not where a shell, which may end, started the process
            threading.Thread(target=_follow_launcher, args=(os.getppid(),), daemon=True).start()
        until_met = max(timeout, SHORTEST_START)
        store = _connect(rank, until_met)
        store = dist.PrefixStore(_meet(store, rank, world_size, until_met), store)
        backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        # NCCL ends the process at its time-out: the control group must find out earlier which process is missing.
        patience = timeout + timedelta(minutes=1) if backend == "nccl" else timeout
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("c10d", store),
            rank=rank,
            world_size=world_size,
            timeout=patience,
            device_id=bound,
        )
        _control = _Control(dist.PrefixStore("control", store), rank, world_size, timeout)
    return Process(rank, world_size, device)


def _connect(rank: int, until_met: timedelta) -> dist.Store:
    """Waits for the store, which torchrun or rank 0 has, and connects to it.

    Raises:
        OneProcessError: it does not answer, or rank 0 cannot open it.
    """
    address, port = os.environ["MASTER_ADDR"], _number("MASTER_PORT", 0)
    of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    last = time.monotonic() + (LONGEST_CONNECT if of_torchrun else until_met).total_seconds()
    while of_torchrun or rank > 0:
        try:
            socket.create_connection((address, port), timeout=SECONDS_TO_ANSWER).close()
            break
        except (OSError, OverflowError) as error:  # OverflowError: a number that is no port
            if time.monotonic() > last or isinstance(error, OverflowError):
                who = "torchrun has ended, or the address is wrong" if of_torchrun else "rank 0 is not there"
                raise OneProcessError(
                    f"nothing answers at MASTER_ADDR={address}, MASTER_PORT={port} ({error}): {who}"
                ) from None
        time.sleep(0.2)
    try:
        return next(dist.rendezvous("env://", timeout=until_met))[0]
    except dist.DistError as error:
        raise OneProcessError(f"MASTER_ADDR={address}, MASTER_PORT={port}: {one_line(error)}") from None


def _follow_launcher(launcher: int) -> None:
    """Stops this process when torchrun is gone: nobody else would end processes that wait for each other.

    A training saves first, as after any SIGTERM. A process that still waits for the others ends at once.
    """
    while os.getppid() == launcher:
        time.sleep(1)
    if _control is None:
        os._exit(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _meet(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> str:
    """Waits until all processes are there. Returns a name that these processes, and no earlier ones, agree on.

    When torchrun replaces processes, the new ones find what the lost ones left in the store, PyTorch's own keys
    included, and would try to reach lost processes. Under a name of their own they do not.
    """
    me, last = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    store.set(f"here/{rank}", me)
    name = ""
    while time.monotonic() < last:
        # Rank 0 lists the processes that it sees. Those that find themselves in the list agree to it.
        if rank == 0:
            here = [f"here/{other}" for other in range(world_size)]
            if store.check(here):
                store.set("members", " ".join(member.decode() for member in store.multi_get(here)))
        if store.check(["members"]):
            members = store.get("members").decode()
            if me in members.split():
                name = hashlib.sha256(members.encode()).hexdigest()
                store.set(f"agreed/{name}/{rank}", "")
        if name and store.check([f"agreed/{name}/{other}" for other in range(world_size)]):
            return name
        time.sleep(0.02)
    absent = [str(other) for other in range(world_size) if not store.check([f"here/{other}"])]
    raise OneProcessError(f"rank {' and '.join(absent) or 'of a process before'} did not come within {timeout}")


def stop() -> None:
    global _control
    _control = None
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_processes(error: RuntimeError) -> list[str]:
    """The processes that caused a collective operation to fail: all those that do not report the failure themselves.

    Each process in which it failed must call this, and stay until it has the answer. Empty for other errors.
    """
    if _control is None or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
        return []
    try:
        return _control.silent_ranks()
    except (RuntimeError, OSError):
        return ["rank 0, at least: the processes cannot meet without it"]


def any_rank(flag: bool) -> bool:
    """Whether the flag is set in at least one process. All of them must ask."""
    if _control is None:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX, _control.group)
    return bool(flags)


def all_gather(value: Any) -> list[Any]:
    """The value of each process, by rank, on every process. Tensors must be on the CPU."""
    if _control is None:
        return [value]
    values: list[Any] = [None] * _control.world_size
    dist.all_gather_object(values, value, _control.group)
    return values


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes of a tensor on the device, which it replaces."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values
