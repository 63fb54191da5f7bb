"""Processes: who am I among them, which share of the data is mine, what do all of them know."""

import hashlib
import inspect
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

import models
from engine.errors import OneProcessError, UserError
from models.sifa_resnet import ClipBottleneck
from models.sifa_swin import ClipSwinBlock

SHORTEST_START = timedelta(minutes=5)  # imports from a cold disk take their time, on one node more than on another
SECONDS_FOR_WORD = 5  # of processes that lost one of them, from the first to the last


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
    """Whether torchrun started this process in place of one before (--max-restarts).

    On a node that has replaced another it did not, so that each process may have another answer.
    """
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


class _Control:
    """How processes agree: a group of its own, over the CPU, so that agreeing never waits for a GPU.

    And where each of them leaves word, in the store that all share, when it has lost one of the others.
    """

    def __init__(self, store: dist.Store, rank: int, world: int, timeout: timedelta) -> None:
        self.store, self.rank, self.world = store, rank, world
        self.group: Any = dist.new_group(backend="gloo", timeout=timeout)
        store.set(f"host of {rank}", socket.gethostname())

    def silent(self) -> list[str]:
        """Leaves word. Those that do not do so within some seconds, with their hosts."""
        self.store.set(f"gave up {self.rank}", "")
        silent, last = list(range(self.world)), time.monotonic() + SECONDS_FOR_WORD
        while silent and time.monotonic() < last:
            silent = [rank for rank in silent if not self.store.check([f"gave up {rank}"])]
            time.sleep(0.1)
        return [f"rank {rank} on {self.store.get(f'host of {rank}').decode()}" for rank in silent]


_control: _Control | None = None


def start(local_rank: int | None = None, timeout: timedelta = timedelta(minutes=30)) -> Process:
    """Joins the processes that torchrun or torch.distributed.launch started; alone without either.

    Args:
        local_rank: what the launcher passed as --local-rank, where it did; else the environment's LOCAL_RANK.
        timeout: how long the processes wait for one of them before they give up: see `lost_processes`.
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
        until_met = max(timeout, SHORTEST_START)
        store, rank, world = next(dist.rendezvous("env://", timeout=until_met))
        store = dist.PrefixStore(_meet(store, rank, world, until_met), store)
        backend, bound = ("nccl", device) if device.type == "cuda" else ("gloo", None)
        # NCCL ends the process when its time is up: the control group must find out before who is missing.
        patience = timeout + timedelta(minutes=1) if backend == "nccl" else timeout
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("c10d", store),
            rank=rank,
            world_size=world,
            timeout=patience,
            device_id=bound,
        )
        _control = _Control(dist.PrefixStore("control", store), rank, world, timeout)
    return Process(rank, world, device)


def _meet(store: dist.Store, rank: int, world: int, timeout: timedelta) -> str:
    """Waits until all processes are there. Returns a name that they, and none that were there before them, agree on.

    When torchrun replaces processes, the new ones find in the store what the lost ones have left: PyTorch's own keys
    among it, by which they would try to reach the dead. Under a name of their own they do not.
    """
    me, last = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    store.set(f"here/{rank}", me)
    name = ""
    while time.monotonic() < last:
        # Rank 0 tells whom it sees; those who find themselves among them agree; when all have, it is settled.
        if rank == 0:
            here = [f"here/{other}" for other in range(world)]
            if store.check(here):
                store.set("members", " ".join(member.decode() for member in store.multi_get(here)))
        if store.check(["members"]):
            members = store.get("members").decode()
            if me in members.split():
                name = hashlib.sha256(members.encode()).hexdigest()
                store.set(f"agreed/{name}/{rank}", "")
        if name and store.check([f"agreed/{name}/{other}" for other in range(world)]):
            return name
        time.sleep(0.02)
    absent = [str(other) for other in range(world) if not store.check([f"here/{other}"])]
    raise OneProcessError(f"rank {' and '.join(absent) or 'of a process before'} did not come within {timeout}")


def stop() -> None:
    global _control
    _control = None
    if dist.is_initialized():
        dist.destroy_process_group()


def lost_processes(error: RuntimeError) -> list[str]:
    """The processes that are to blame for the failure of a collective operation: all that do not complain of it.

    Each process that it failed in must ask, and stay until it has the answer. Empty for other errors.
    """
    if _control is None or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
        return []
    try:
        return _control.silent()
    except (RuntimeError, OSError):
        return ["rank 0, at least: the processes can not meet without it"]


def any_process(flag: bool) -> bool:
    """Whether the flag is set in one of the processes, at least; all of them must ask."""
    if _control is None:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, dist.ReduceOp.MAX, _control.group)
    return bool(flags)


def gather(value: Any) -> list[Any]:
    """What every process holds, by rank, on every process. Tensors must be on the CPU."""
    if _control is None:
        return [value]
    values: list[Any] = [None] * _control.world
    dist.all_gather_object(values, value, _control.group)
    return values


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor on the device over all processes, which replaces it."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def wrap(model: nn.Module, process: Process) -> nn.Module:
    """The model as the processes train it together; the model itself where there is only one, or it is sharded.

    BatchNorm's running statistics stay each process's own until `average_buffers`.
    """
    if process.world == 1 or is_sharded(model):
        return model
    known = inspect.signature(DistributedDataParallel).parameters
    own_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    options: dict[str, Any] = {own_buffers: False, "gradient_as_bucket_view": True}
    if process.device.type == "cuda":
        options["device_ids"] = [process.device.index]
    own = [buffer.clone() for buffer in model.buffers()]
    wrapped = DistributedDataParallel(model, **options)  # gives all processes rank 0's values
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), own, strict=True):
            buffer.copy_(value)
    return wrapped


def shard(model: models.Network, process: Process) -> None:
    """Leaves to this process its share of each parameter, in place: a block puts its own together to run (FSDP2).

    The optimiser must be built afterwards. All processes run the network equally often, in validation as well.

    Raises:
        UserError: there is only one process.
    """
    if process.world == 1:
        raise UserError("execution.strategy fsdp shares the network between processes, and there is one: use ddp")
    mesh = init_device_mesh(process.device.type, (process.world,))
    for module in model.modules():
        if isinstance(module, (ClipBottleneck, ClipSwinBlock)):
            fully_shard(module, mesh=mesh)
    # The rest, too, gives back what it put together: it would be out of date when weights are swapped.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    # A block's clip is a view of its frames; nothing changes it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def synchronise_batch_norm(model: nn.Module, process: Process) -> nn.Module:
    """BatchNorm over the clips of all processes, where there are several.

    Raises:
        UserError: they are not on GPUs; PyTorch's SyncBatchNorm needs them.
    """
    if process.world == 1:
        return model
    if process.device.type == "cpu":
        raise UserError("optimization.batch_norm sync needs GPUs")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def average_buffers(model: nn.Module) -> None:
    """Makes BatchNorm's running statistics the mean over the processes, each of which saw its own clips.

    So that all processes validate, and rank 0 saves, the same network. Norms at rest have the same ones already.
    """
    if not dist.is_initialized():
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.training:
            for buffer in (module.running_mean, module.running_var):
                if buffer is not None:
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
