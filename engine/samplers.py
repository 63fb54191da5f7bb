"""Which samples each process draws: of a training epoch, of what is left of it, of a validation."""

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from engine.distributed import Process


class TrainSampler(Sampler[tuple[int, int]]):
    """The share of this process in a shuffled training set: (index, epoch) for each sample of an epoch.

    The order is a function of seed and epoch alone. Each process draws the same number of samples, in whole steps of
    world_size * batch_size * iter_size; the few that remain are left out, different ones in each epoch.

    Samples in shards are drawn shard by shard, see `shuffle_in_window`: a shard that was downloaded is used up before
    others push it out. All processes draw from the same shards at the same time.

    Args:
        length: samples of the training set.
        process: this process.
        batch_size: clips of one iteration in each process.
        iter_size: iterations of one step of the optimizer.
        seed: of the order.
        shards: the number of each sample's shard; empty: the samples are not in shards.
        window: shards that are mixed.

    Attributes:
        epoch: the epoch to draw; set it before each one.
        step: samples of each process in one step of the optimizer.
        steps: steps of an epoch.
    """

    def __init__(
        self,
        length: int,
        process: Process,
        *,
        batch_size: int,
        iter_size: int,
        seed: int,
        shards: Sequence[int] = (),
        window: int = 1,
    ) -> None:
        self.length, self.process, self.seed = length, process, seed
        self.shards, self.window = shards, window
        self.step = batch_size * iter_size
        self.steps = length // (self.step * process.world_size)
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps * self.step

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.shards:
            order = shuffle_in_window(torch.tensor(self.shards), self.window, generator)
        else:
            order = torch.randperm(self.length, generator=generator)
        order = order[: len(self) * self.process.world_size]
        for index in order[self.process.rank :: self.process.world_size].tolist():
            yield index, self.epoch


def shuffle_in_window(shards: Tensor, window: int, generator: torch.Generator) -> Tensor:
    """A random order of samples in which few shards are in use at any time.

    The shards are put in a random order. The samples of the shard at place p get random numbers from p to p + window,
    and are sorted by them. So the samples of `window` shards are mixed at any time, fewer at both ends of the epoch,
    and one shard begins whenever another ends.

    Args:
        shards: int64 (samples,), the number of each sample's shard.
        window: shards in use at a time, at least 1. With more than there are shards, it becomes a usual shuffle.
        generator: of the random numbers.

    Returns:
        int64 (samples,), each index once.
    """
    _, number = shards.unique(return_inverse=True)
    places = torch.randperm(int(number.max()) + 1, generator=generator)
    shifts = torch.rand(len(shards), dtype=torch.float64, generator=generator) * window
    return (places[number] + shifts).argsort(stable=True)


class AheadSampler(Sampler[Any]):
    """Adds to each key the index of a sample that is drawn later, whose shard can be downloaded meanwhile.

    Args:
        sampler: of keys (index, ...); yields (index, ..., index of the later sample) from it.
        ahead: how many samples later.
    """

    def __init__(self, sampler: Sampler[Any], ahead: int) -> None:
        self.sampler, self.ahead = sampler, ahead

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        last = None
        for key, later in zip_longest(self.sampler, islice(iter(self.sampler), self.ahead, None)):
            last = later or last or key
            yield *key, last[0]


class RepeatedSampler(Sampler[Any]):
    """Repeated augmentation (Hoffer et al. 2020): each sample `repeats` times in a row.

    Each time it is augmented differently. The length of an epoch stays, so that it sees 1 / repeats of the samples,
    different ones in each epoch.

    Args:
        sampler: of (index, epoch); yields (index, epoch, repeat) from it.
        repeats: at least 1.
    """

    def __init__(self, sampler: Sampler[tuple[int, int]], repeats: int) -> None:
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}")
        self.sampler = sampler
        self.repeats = repeats

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        left = len(self)
        for index, epoch in self.sampler:
            for repeat in range(min(self.repeats, left)):
                yield index, epoch, repeat
            left -= self.repeats
            if left <= 0:
                return


class ResumableSampler(Sampler[Any]):
    """The samples of another sampler after the first `done`: the rest of an epoch that was interrupted."""

    def __init__(self, sampler: Sampler[Any]) -> None:
        self.sampler, self.done = sampler, 0

    def __len__(self) -> int:
        return len(self.sampler) - self.done  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.sampler), self.done, None)


class DistributedVideoSampler(Sampler[int]):
    """The share of this process in the videos of a validation set: all views of each video on one process, once.

    Args:
        videos: numbers of the videos to score.
        views: of each video; index = video * views + view.
        process: this process.
        shards: the number of each video's shard, so that the videos of a shard are scored in a row; empty: the videos
            are not in shards.
    """

    def __init__(self, videos: Sequence[int], views: int, process: Process, shards: Sequence[int] = ()) -> None:
        self.views, self.process, self.shards = views, process, shards
        self.restrict(videos)

    def restrict(self, videos: Sequence[int]) -> None:
        """Shares these videos between the processes."""
        if self.shards:
            videos = sorted(videos, key=self.shards.__getitem__)
        self.videos = videos[self.process.rank :: self.process.world_size]

    def __len__(self) -> int:
        return len(self.videos) * self.views

    def __iter__(self) -> Iterator[int]:
        for video in self.videos:
            yield from range(video * self.views, (video + 1) * self.views)
