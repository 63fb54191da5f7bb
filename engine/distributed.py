"""Processes: who am I among them, which share of the data is mine, what do all of them know."""

import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
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


def start(local_rank: int | None = None) -> Process:
    """Joins the processes that torchrun or torch.distributed.launch started; alone without either.

    Args:
        local_rank: what the launcher passed as --local-rank, where it did; else the environment's LOCAL_RANK.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if local_rank is None:
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", device_id=_bound(device))
    return Process(rank, world, device)


def _bound(device: torch.device) -> torch.device | None:
    return device if device.type == "cuda" else None


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def gather(value: Any) -> list[Any]:
    """What every process holds, by rank, on every process. Tensors must be on the CPU."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes."""
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


class VideoShare(Sampler[int]):
    """This process's share of a validation set, whole videos: every video on one process, once."""

    def __init__(self, videos: int, views: int, process: Process) -> None:
        self.views = views
        self.mine = range(process.rank, videos, process.world)

    def __len__(self) -> int:
        return len(self.mine) * self.views

    def __iter__(self) -> Iterator[int]:
        for video in self.mine:
            yield from range(video * self.views, (video + 1) * self.views)
