"""The statistics of BatchNorm: over processes, over several batches, or frozen."""

from collections.abc import Iterable
from itertools import islice

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import UserError
from engine.distributed import Process


def synchronise_batch_norm(model: nn.Module, process: Process) -> nn.Module:
    """Lets BatchNorm normalise over the clips of all processes, if there are several.

    Raises:
        UserError: the processes have no GPUs, which PyTorch's SyncBatchNorm needs.
    """
    if process.world_size == 1:
        return model
    if process.device.type == "cpu":
        raise UserError("optimization.batch_norm sync needs GPUs")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def average_buffers(model: nn.Module) -> None:
    """Replaces the running statistics of BatchNorm by their mean over the processes, each of which saw other clips.

    Afterwards all processes validate, and rank 0 saves, the same network. Layers in eval mode agree already.
    """
    if not dist.is_initialized():
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.training:
            for buffer in (module.running_mean, module.running_var):
                if buffer is not None:
                    dist.all_reduce(buffer)
                    buffer /= dist.get_world_size()


@torch.no_grad()
def precise_batch_norm(model: nn.Module, clips: Iterable[Tensor], batches: int) -> None:
    """Computes the statistics of BatchNorm again, as the plain mean over some batches with the present weights.

    Frozen layers keep theirs. All other modules are in eval mode meanwhile, so that no random number is drawn.

    Args:
        model: the bare network.
        clips: batches of training clips, as the network takes them.
        batches: how many of them to use.
    """
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.weight.requires_grad]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's value for the plain mean
    for batch in islice(clips, batches):
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def hold_frozen_statistics(model: nn.Module) -> None:
    """Puts each BatchNorm whose parameters are frozen into eval mode: its statistics are part of what it learnt."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()
