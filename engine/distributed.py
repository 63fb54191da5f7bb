"""Processes: who am I among them, which share of the data is mine, what do all of them know."""

import inspect
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Process:
    """This process among `world` of them. Rank 0 writes files and logs."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def is_main() -> bool:
    """Whether this is the process that speaks, also before `start`."""
    return int(os.environ.get("RANK", 0)) == 0


def restarted() -> bool:
    """Whether torchrun started these processes anew after some were lost (--max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


class _Control:
    """How processes agree: a group of its own, over the CPU, so that agreeing never waits for a GPU.

    Before each agreement a process leaves the number of it in the store that all share. When an agreement fails, these
    numbers tell who is missing.
    """

    def __init__(self, store: dist.Store, rank: int, world: int) -> None:
        self.store, self.rank, self.world, self.count = store, rank, world, 0
        self.group: Any = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        store.set(f"sifa/host/{rank}", socket.gethostname())
        self.arrive()

    def arrive(self) -> None:
        self.count += 1
        self.store.set(f"sifa/arrived/{self.rank}", str(self.count))

    def missing(self) -> list[str]:
        """The ranks that have come less far than this one, with their hosts."""
        late = []
        for rank in range(self.world):
            self.store.wait([f"sifa/arrived/{rank}", f"sifa/host/{rank}"], timedelta(seconds=10))
            if int(self.store.get(f"sifa/arrived/{rank}")) < self.count:
                late.append(f"rank {rank} on {self.store.get(f'sifa/host/{rank}').decode()}")
        return late


_control: _Control | None = None


def start(local_rank: int | None = None, timeout: timedelta = timedelta(minutes=30)) -> Process:
    """Joins the processes that torchrun or torch.distributed.launch started; alone without either.

    Args:
        local_rank: what the launcher passed as --local-rank, where it did; else the environment's LOCAL_RANK.
        timeout: how long the processes wait for one of them before they give up: see `missing_processes`.
    """
    global _control
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if local_rank is None:
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world > 1:
        store, rank, world = next(dist.rendezvous("env://", timeout=timeout))
        backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("c10d", store),
            rank=rank,
            world_size=world,
            timeout=timeout,
            device_id=bound,
        )
        _control = _Control(dist.PrefixStore("control", store), rank, world)
    return Process(rank, world, device)


def stop() -> None:
    global _control
    _control = None
    if dist.is_initialized():
        dist.destroy_process_group()


def missing_processes() -> list[str]:
    """After a collective operation failed: the processes that did not come to the last agreement, with their hosts."""
    try:
        return _control.missing() if _control else []
    except (dist.DistError, RuntimeError, OSError):
        return ["rank 0, which keeps the list of the others"]


def any_process(flag: bool) -> bool:
    """Whether the flag is set in one of the processes, at least; all of them must ask."""
    if _control is None:
        return flag
    _control.arrive()
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX, _control.group)
    return bool(flags)


def gather(value: Any) -> list[Any]:
    """What every process holds, by rank, on every process. Tensors must be on the CPU."""
    if _control is None:
        return [value]
    _control.arrive()
    values: list[Any] = [None] * _control.world
    dist.all_gather_object(values, value, _control.group)
    return values


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, which replaces it."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def wrap(model: nn.Module, process: Process) -> nn.Module:
    """The model as the processes train it together; the model itself where there is only one.

    BatchNorm's running statistics stay each process's own until `average_buffers`.
    """
    if process.world == 1:
        return model
    known = inspect.signature(DistributedDataParallel).parameters
    own_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    options: dict[str, Any] = {own_buffers: False, "gradient_as_bucket_view": True}
    if process.device.type == "cuda":
        options["device_ids"] = [process.device.index]
    return DistributedDataParallel(model, **options)


def average_buffers(model: nn.Module) -> None:
    """Makes BatchNorm's running statistics the mean over the processes, each of which saw its own clips.

    So that all processes validate, and rank 0 saves, the same network.
    """
    if dist.is_initialized():
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= dist.get_world_size()


class TrainSampler(Sampler[tuple[int, int]]):
    """This process's share of a shuffled training set: (index, epoch) for each sample of an epoch.

    The order is a function of seed and epoch alone. Every process draws equally many samples, in whole steps of
    world * batch_size * iter_size; the few that remain are left out, others in each epoch.
    """

    def __init__(self, length: int, process: Process, *, batch_size: int, iter_size: int, seed: int) -> None:
        self.length, self.process, self.seed = length, process, seed
        self.step = batch_size * iter_size  # samples of each process between two steps of the optimiser
        self.steps = length // (self.step * process.world)
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps * self.step

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator)[: len(self) * self.process.world]
        for index in order[self.process.rank :: self.process.world].tolist():
            yield index, self.epoch


class Rest(Sampler[Any]):
    """What is left of another sampler's samples after the first `done`, for an epoch that was broken off."""

    def __init__(self, sampler: Sampler[Any]) -> None:
        self.sampler, self.done = sampler, 0

    def __len__(self) -> int:
        return len(self.sampler) - self.done  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.sampler), self.done, None)


class VideoShare(Sampler[int]):
    """This process's share of some videos of a validation set, whole: every video on one process, once."""

    def __init__(self, videos: Sequence[int], views: int, process: Process) -> None:
        self.views = views
        self.mine = videos[process.rank :: process.world]

    def __len__(self) -> int:
        return len(self.mine) * self.views

    def __iter__(self) -> Iterator[int]:
        for video in self.mine:
            yield from range(video * self.views, (video + 1) * self.views)
