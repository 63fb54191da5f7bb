"""The optimiser and its learning rate."""

import math
import warnings
from collections.abc import Callable

import torch
from torch import nn

from engine.schema import Optimization


# The schedule moves every iteration, the optimiser every iter_size of them: PyTorch takes that for a mistake.
warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step")


def learning_rate_at(settings: Optimization, iterations_per_epoch: int) -> Callable[[int], float]:
    """The release's schedule: the learning rate of iteration 0, 1, ... over the whole training.

    Linear warm-up from base / warmup_multiplier, then a cosine to min_learning_rate. As in the release the cosine
    begins one iteration late: the base learning rate is used twice, and the cosine's last value never.
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


def build_optimizer(model: nn.Module, settings: Optimization) -> torch.optim.Optimizer:
    """SGD over all parameters; every one decays, as in the release."""
    return torch.optim.SGD(
        model.parameters(),
        lr=settings.base_learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )


def build_scheduler(
    optimizer: torch.optim.Optimizer, settings: Optimization, iterations_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """`learning_rate_at` as a PyTorch scheduler, to be stepped after every iteration."""
    rate = learning_rate_at(settings, iterations_per_epoch)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate(i) / settings.base_learning_rate)
