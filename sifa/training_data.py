"""The clips of a training, epoch by epoch, in the share of this process."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from common.files import digest, is_url
from datasets.clips import ClipDataset
from datasets.mixing import MixupCutmix
from datasets.shards import ShardedVideos
from engine.agreement import check_equal
from engine.checkpoint import save_checkpoint
from engine.config import ConfigError
from engine.distributed import Process
from engine.metrics import chance
from engine.prefetch import DevicePrefetcher
from engine.samplers import AheadSampler, RepeatedSampler, ResumableSampler, TrainSampler
from engine.schema import Config
from sifa.build import build_batches, build_dataset
from sifa.trained_settings import describe_data

log = logging.getLogger("sifa")


class TrainingData:
    """The training videos of a configuration, what is drawn of them in each epoch, and how batches are mixed.

    Args:
        config: of the run.
        process: this process.

    Attributes:
        videos: how many the list has.
        list_digest: of the content of the list; for videos in shards, with what else the order depends on.
        iterations_per_epoch: batches of this process.
        clips_per_step: of all processes between two steps of the optimizer.

    Raises:
        ConfigError: the list has fewer videos than one step takes, a file is missing, or the cache is too small for the
            shards of a window.
        DataError: the list cannot be read.
    """

    def __init__(self, config: Config, process: Process) -> None:
        self.config, self.process = config, process
        self.batch_size = config.optimization.batch_size
        self.dataset = build_dataset(config, train=True)
        self.videos = len(self.dataset)
        self.list_digest = digest(config.dataset.list_file)[:16]
        if index := self.dataset.index_digest:
            self.list_digest += f" with the shards {index} in windows of {config.dataset.shard_window}"
            check_equal({"the index of the training shards": index})
            _check_cache(config, self.dataset)
        self._order = self._sampler(config.optimization.iter_size)
        if self._order.steps == 0:
            raise ConfigError(
                f"{config.dataset.list_file} has {self.videos} videos, fewer than one step takes: {process.world_size} "
                f"processes x optimization.batch_size={self.batch_size} x iter_size={config.optimization.iter_size}"
            )
        self.clips_per_step = self._order.step * process.world_size
        self._keys = ResumableSampler(
            self._with_hints(RepeatedSampler(self._order, config.transform.repeated_augmentation))
        )
        self._batches = build_batches(self.dataset, self._keys, self.batch_size, config, process)
        self.iterations_per_epoch = len(self._batches.loader)  # type: ignore[arg-type]

    def _sampler(self, iter_size: int) -> TrainSampler:
        return TrainSampler(
            self.videos,
            self.process,
            batch_size=self.batch_size,
            iter_size=iter_size,
            seed=self.config.seed,
            shards=self.dataset.shards,
            window=self.config.dataset.shard_window,
        )

    def _with_hints(self, sampler: RepeatedSampler) -> Sampler[Any]:
        """For videos in shards: with each sample, one that is as far away as one shard lasts."""
        if not (shards := self.dataset.shards):
            return sampler
        return AheadSampler(sampler, len(sampler) // len(set(shards)))

    def summary(self, model: nn.Module, validation_videos: int, learning_rate: float) -> str:
        """One line about the training, for its log."""
        config, process = self.config, self.process
        return (
            f"{config.network.net_name}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, on "
            f"{process.world_size} x {process.device.type}; {self.videos} training and {validation_videos} validation "
            f"videos of {config.dataset.num_classes} classes ({chance(config.dataset.num_classes)}); "
            f"{self.clips_per_step} clips a step, learning rate {learning_rate:.3g}; writing {config.output_dir}"
        )

    @property
    def description(self) -> str:
        """What a checkpoint says that it was trained on: name of the data, number of classes and videos."""
        return f"{describe_data(self.config)}, {self.videos} videos"

    def epoch(self, epoch: int, done: int) -> DevicePrefetcher:
        """The batches of an epoch after its first `done` iterations."""
        self._order.epoch, self._keys.done = epoch, done * self.batch_size
        return self._batches

    def mix(self, epoch: int) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None:
        """Mixup, cutmix and label smoothing of the batches of an epoch; None if the configuration asks for none."""
        transform = self.config.transform
        mixing = MixupCutmix(
            self.config.dataset.num_classes,
            self.config.seed,
            mixup_alpha=transform.mixup_alpha,
            cutmix_alpha=transform.cutmix_alpha,
            label_smoothing=transform.label_smoothing,
        )
        if not mixing.enabled:
            return None
        return lambda clips, labels, iteration: mixing(clips, labels, (epoch, self.process.rank, iteration))

    def clips(self, epoch: int) -> Iterator[Tensor]:
        """Batches of clips as an epoch will draw them, without repetition and mixing."""
        sampler = self._sampler(iter_size=1)
        sampler.epoch = epoch
        return (clip for clip, *_ in build_batches(self.dataset, sampler, self.batch_size, self.config, self.process))

    def save_batch(self, path: Path, epoch: int, iteration: int) -> None:
        """Writes the batch of an iteration as it was drawn, to find out why its loss was not finite.

        Args:
            path: of the file.
            epoch: counted from 0; the present one.
            iteration: counted from 1.
        """
        keys = list(islice(self._keys.sampler, (iteration - 1) * self.batch_size, iteration * self.batch_size))
        clips, labels, indices = zip(*(self.dataset[key] for key in keys), strict=True)
        videos = [self.dataset.videos[index].path for index in indices]
        contents = {"clips": torch.stack(clips), "labels": list(labels), "videos": videos}
        save_checkpoint(path, {**contents, "epoch": epoch, "iteration": iteration})
        log.warning(f"the batch of iteration {iteration} is in {path}: {', '.join(videos)}")


def _check_cache(config: Config, dataset: ClipDataset) -> None:
    """Raises ConfigError if the shards of a window, and the next one, do not fit into the cache."""
    assert isinstance(dataset.reader, ShardedVideos)
    sizes = sorted((shard.bytes for shard in dataset.reader.shards), reverse=True)[: config.dataset.shard_window + 1]
    if is_url(dataset.reader.root) and (wanted := sum(sizes) / 1e9) > config.dataset.shard_cache_gb:
        raise ConfigError(
            f"dataset.shard_cache_gb must be at least {wanted:.3g}, for dataset.shard_window="
            f"{config.dataset.shard_window} shards and the next one, got {config.dataset.shard_cache_gb:g}"
        )
