"""Trainings small enough to follow: what a test of engine/ needs to take a few steps."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from engine.averaging import WeightAverage
from engine.distributed import Process
from engine.loops import train_epoch
from engine.metrics import Metrics
from engine.optim import build_optimizer, build_scheduler
from engine.schema import Config, Execution, Logging, Optimization
from engine.training import Training

ALONE = Process(0, 1, torch.device("cpu"))


def config_of(optimization: Optimization, amp: Any = "none", **logging: Any) -> Config:
    return Config(
        optimization=optimization, execution=Execution(amp=amp), logging=Logging(**{"print_freq": 2, **logging})
    )


def new_training(model: nn.Module, config: Config, iterations: int) -> Training:
    """At the beginning of its first epoch."""
    settings = config.optimization
    optimizer = build_optimizer(model, settings)
    return Training(
        model=model,
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, settings, iterations),
        scaler=torch.amp.GradScaler("cpu", enabled=config.execution.amp == "fp16"),
        average=WeightAverage(model, settings.ema_decay) if settings.ema_decay else None,
        iterations_per_epoch=iterations,
        device=torch.device("cpu"),
    )


def train_one_epoch(
    training: Training, loader: Iterable, config: Config, *, network: nn.Module | None = None, **options: Any
) -> Metrics:
    """Trains what is left of the epoch, alone, and counts it."""
    metrics = train_epoch(training, network or training.model, loader, config, ALONE, **options)
    training.epoch += 1
    training.start_epoch()
    return metrics
