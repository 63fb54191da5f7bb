"""The optimizer, its parameter groups and learning rate, and which parameters train."""

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import UserError
from engine.distributed import is_main
from engine.schema import Optimization

log = logging.getLogger("sifa")

# The scheduler moves at every iteration, the optimizer at every iter_size-th: PyTorch takes that for a mistake.
warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step")


def learning_rate_at(settings: Optimization, iterations_per_epoch: int) -> Callable[[int], float]:
    """The schedule of the release: the learning rate of iteration 0, 1, ... over the whole training.

    Linear warm-up from base / warmup_multiplier, then a cosine to min_learning_rate. As in the release the cosine
    begins one iteration late: the base learning rate is used twice, and the last value of the cosine never.
    """
    base, end = settings.base_learning_rate, settings.min_learning_rate
    warmup = settings.warmup_epoch * iterations_per_epoch
    cosine = settings.epochs * iterations_per_epoch - warmup

    def at(iteration: int) -> float:
        if iteration < warmup:
            start = base / settings.warmup_multiplier
            return start + (base - start) * iteration / warmup
        progress = max(iteration - warmup - (1 if warmup else 0), 0) / cosine
        return end + (base - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

    return at


def scaled_to_step(settings: Optimization, world_size: int) -> Optimization:
    """The settings with a learning rate for the clips of a step (Goyal et al. 2017), if base_batch_size is set."""
    if settings.base_batch_size == 0:
        return settings
    clips = settings.batch_size * settings.iter_size * world_size
    factor = clips / settings.base_batch_size
    return settings.model_copy(update={"base_learning_rate": settings.base_learning_rate * factor})


def build_optimizer(model: nn.Module, settings: Optimization) -> torch.optim.Optimizer:
    """SGD or AdamW. As in the release all parameters have the same weight decay unless the settings say otherwise.

    Raises:
        UserError: a pattern of layer_multipliers matches no parameter. If it is of a base, this is a warning.
    """
    groups = parameter_groups(model, settings)
    if is_main():
        _warn_of_unused(model, settings)
    rate, decay = settings.base_learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(settings.momentum, 0.999), weight_decay=decay, fused=True)
    return torch.optim.SGD(
        groups,
        lr=rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=decay,
        # Not fused: PyTorch's fused SGD starts from uninitialised momentum where the gradient scaler skips the first
        # step, and cannot begin with some weights later than with others.
        foreach=True,
    )


def parameter_groups(model: nn.Module, settings: Optimization) -> list[dict[str, Any]]:
    """Groups of parameters with the same learning rate and decay, those of the base learning rate first."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = 1.0
        for pattern, value in settings.layer_multipliers.items():
            if fnmatchcase(name, pattern):
                factor = value
        decays = settings.decay_all or (parameter.dim() > 1 and not name.endswith("position_bias_table"))
        groups.setdefault((factor, decays), []).append(parameter)
    _refuse_unused("layer_multipliers", settings.layer_multipliers, model, settings)
    return [
        {
            "params": parameters,
            "lr": settings.base_learning_rate * factor,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (factor, decays), parameters in sorted(groups.items(), key=lambda group: group[0][0] != 1.0)
    ]


def _unused(patterns: Iterable[str], model: nn.Module) -> list[str]:
    """The patterns that match no parameter."""
    names = [name for name, _ in model.named_parameters()]
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)]


def _refuse_unused(key: str, patterns: Iterable[str], model: nn.Module, settings: Optimization) -> None:
    """Raises UserError if a pattern matches no parameter and is not of a base."""
    if unused := sorted(set(_unused(patterns, model)) - settings.unused_allowed):
        some = [name for name, _ in model.named_parameters()][:: max(1, len(list(model.parameters())) // 3)]
        raise UserError(
            f"optimization.{key}: no parameter is named like {', '.join(unused)}; there are {', '.join(some)}"
        )


def _warn_of_unused(model: nn.Module, settings: Optimization) -> None:
    for key, patterns in (("layer_multipliers", settings.layer_multipliers), ("freeze", settings.freeze)):
        if unused := _unused(patterns, model):
            log.warning(f"optimization.{key}: no parameter of this network is named like {', '.join(unused)}")


def freeze(model: nn.Module, settings: Optimization, epoch: int) -> bool:
    """Sets which parameters train in an epoch (counted from 0).

    Returns:
        Whether they changed: DistributedDataParallel must then wrap the model again.

    Raises:
        UserError: a pattern of optimization.freeze matches no parameter, or all of them together match every one.
    """
    fits = {
        pattern: {name for name, _ in model.named_parameters() if fnmatchcase(name, pattern)}
        for pattern in settings.freeze
    }
    _refuse_unused("freeze", settings.freeze, model, settings)
    frozen = set().union(*fits.values())
    if len(frozen) == sum(1 for _ in model.parameters()):
        raise UserError(f"optimization.freeze: {', '.join(settings.freeze)} leaves no parameter to train")
    if settings.freeze_epochs and epoch >= settings.freeze_epochs:
        frozen = set()
    if settings.batch_norm == "frozen":
        frozen |= {
            f"{name}.{own}"
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm)
            for own, _ in module.named_parameters()
        }
    changed = False
    for name, parameter in model.named_parameters():
        changed |= parameter.requires_grad == (name in frozen)
        parameter.requires_grad_(name not in frozen)
    return changed


def build_scheduler(
    optimizer: torch.optim.Optimizer, settings: Optimization, iterations_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """`learning_rate_at` as a PyTorch scheduler; step it after every iteration."""
    rate = learning_rate_at(settings, iterations_per_epoch)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate(i) / settings.base_learning_rate)
