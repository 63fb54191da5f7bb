"""Trainings small enough to follow: what a test of engine/ needs to take a few steps."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from datasets import normalise
from engine.distributed import Process
from engine.metrics import Metrics
from engine.prefetch import DevicePrefetcher
from engine.schema import Config, Execution, Logging, Optimization
from engine.state import TrainState
from engine.train_loop import train_epoch

ALONE = Process(0, 1, torch.device("cpu"))


def config_of(optimization: Optimization, amp: Any = "none", **logging: Any) -> Config:
    return Config(
        optimization=optimization, execution=Execution(amp=amp), logging=Logging(**{"print_freq": 2, **logging})
    )


def new_training(model: nn.Module, config: Config, iterations: int) -> TrainState:
    """At the beginning of its first epoch."""
    return TrainState.new(model, config.optimization, config.execution.amp, iterations, torch.device("cpu"))


def train_one_epoch(
    training: TrainState, loader: Iterable, config: Config, *, network: nn.Module | None = None, **options: Any
) -> Metrics:
    """Trains what is left of the epoch, alone, and counts it."""
    batches = DevicePrefetcher(loader, training.device, normalise)
    metrics = train_epoch(training, network or training.model, batches, config, **options)
    training.epoch += 1
    training.start_epoch()
    return metrics
