"""The network on several processes: replicated (DDP) or sharded (FSDP2)."""

import inspect
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from common.errors import UserError
from engine.distributed import Process


def wrap_ddp(model: nn.Module, process: Process) -> nn.Module:
    """The model in DistributedDataParallel; the model itself if there is one process, or if the model is sharded.

    The running statistics of BatchNorm stay those of each process until `average_buffers`.
    """
    if process.world_size == 1 or is_sharded(model):
        return model
    known = inspect.signature(DistributedDataParallel).parameters
    own_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
    options: dict[str, Any] = {own_buffers: False, "gradient_as_bucket_view": True}
    if process.device.type == "cuda":
        options["device_ids"] = [process.device.index]
    own = [buffer.clone() for buffer in model.buffers()]
    wrapped = DistributedDataParallel(model, **options)  # gives all processes the values of rank 0
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), own, strict=True):
            buffer.copy_(value)
    return wrapped


def shard_fsdp(model: nn.Module, blocks: Iterable[nn.Module], process: Process) -> None:
    """Leaves to this process its share of each parameter, in place. A block gathers its parameters when it runs.

    Build the optimizer afterwards. All processes must run the network equally often, in validation as well.

    Args:
        model: the bare network.
        blocks: the parts of it that are gathered one at a time.
        process: this process.

    Raises:
        UserError: there is only one process.
    """
    if process.world_size == 1:
        raise UserError("execution.strategy fsdp shares the network between processes, and there is one: use ddp")
    mesh = init_device_mesh(process.device.type, (process.world_size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    # The rest of the network frees its parameters as well: kept copies would be stale when weights are swapped.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    # The clip that a block returns is a view of its frames; nothing changes it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)
