"""Trainings small enough to follow: what a test of engine/ needs to take a few steps."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from datasets import normalise
from engine.distributed import Process
from engine.metrics import Metrics
from engine.prefetch import DevicePrefetcher
from engine.schema import Config, Execution, Logging, Optimization
from engine.state import TrainState
from engine.train_loop import train_epoch

CLASSES = 7

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


class Heads(nn.Module):
    """Two linear heads on a clip's mean; no BatchNorm, so that a batch equals its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, CLASSES), nn.Linear(3, CLASSES)

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        mean = clip.mean((2, 3, 4))
        return self.one(mean), self.two(mean)


class Clips(Dataset):
    def __init__(self, videos: int, views: int = 1) -> None:
        generator = torch.Generator().manual_seed(1)
        self.clips = torch.randint(256, (videos * views, 2, 2, 2, 3), generator=generator, dtype=torch.uint8)
        self.labels = torch.randint(CLASSES, (videos,), generator=generator)
        self.videos = [SimpleNamespace(label=label) for label in self.labels.tolist()]
        self.views = views

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Any) -> tuple[Tensor, int, int]:
        index = key[0] if isinstance(key, tuple) else key
        return self.clips[index], int(self.labels[index // self.views]), index
