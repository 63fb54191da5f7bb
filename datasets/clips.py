"""The dataset: a list file and its frames as clips, random ones for training, all views in order for evaluation."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import DataError
from datasets.annotations import Video, read_list
from datasets.bad_videos import BadVideos
from datasets.processes import end_with_parent
from datasets.readers import USUAL, Format, ReaderOptions, open_reader
from datasets.sampling import check_at_least_one, check_time_crop, test_positions, train_positions
from datasets.shard_index import ShardError
from datasets.shards import ShardedVideos
from datasets.transforms import Transform

Sample = tuple[Tensor, int, int]
OnBadSample = Literal["raise", "replace"]


class ClipDataset(Dataset[Sample]):
    """Clips of the videos of a list file.

    A sample is (clip, label, index). The transform makes the clip from the frames, uint8 (T, H, W, 3), RGB, with
    T = num_segments * clip_length. The transforms of this package return uint8 (T, crop_size, crop_size, 3), and
    `normalise` makes the input of a network from a batch of such clips, on the network's device.

    In training, a sample is one random clip of one video. Its position and its augmentation are a function of (seed,
    epoch, index) alone: they are the same in any order, worker and process. In evaluation, a sample is a view of a
    video, a crop of a clip, with index = video * views + clip * num_crops + crop.

    Args:
        list_file: see `read_list`.
        root: see `open_reader`.
        num_classes: see `read_list`.
        num_segments: see `datasets.sampling`.
        clip_length: see `datasets.sampling`.
        num_steps: see `datasets.sampling`.
        transform: one transform, or a sequence with a transform for each of the num_crops crops.
        train: training or evaluation.
        num_clips: clips of each video in evaluation.
        num_crops: crops of each clip in evaluation.
        time_crop: share of a video that a clip is drawn from in training, see `datasets.sampling.train_positions`.
        seed: of the random numbers in training.
        format: see `open_reader`.
        reader_options: see `open_reader`.
        on_bad_sample: what happens in training if a video cannot be read. "raise": the error is raised. "replace":
            another video is drawn, and the sample has its label and index; a shard that is missing or cannot be
            downloaded is an error, because it is not one video that is bad. The draw is a function of (seed, epoch,
            index) too, for the same files. Evaluation always raises: a metric is over all videos.
        max_bad_fraction: the share of the videos that may be replaced, in [0, 1). One more is an error.

    Attributes:
        videos: of the list file.
        bad_videos: those that could not be read.

    Raises:
        DataError: the list file or the root is wrong. On access: a frame is missing or broken; the message names the
            list file, the line and the frame.
        ValueError: an argument is out of range or contradicts another one.
    """

    def __init__(
        self,
        list_file: str | os.PathLike[str],
        root: str | os.PathLike[str],
        *,
        num_classes: int,
        num_segments: int,
        clip_length: int,
        num_steps: int,
        transform: Transform | Sequence[Transform],
        train: bool,
        num_clips: int = 1,
        num_crops: int = 1,
        time_crop: Sequence[float] | None = None,
        seed: int = 0,
        format: Format = "FRAME",
        reader_options: ReaderOptions = USUAL,
        on_bad_sample: OnBadSample = "raise",
        max_bad_fraction: float = 0.01,
    ) -> None:
        check_at_least_one(num_segments=num_segments, clip_length=clip_length, num_steps=num_steps)
        if time_crop is not None:
            check_time_crop(time_crop)
        self._transforms = _check_views(transform, train, num_clips, num_crops)
        if on_bad_sample not in get_args(OnBadSample):
            raise ValueError(f"on_bad_sample must be {' or '.join(get_args(OnBadSample))}, got {on_bad_sample!r}")
        self.list_file = list_file
        self.videos: Sequence[Video] = read_list(list_file, num_classes=num_classes)
        lengths = {video.path: video.num_frames for video in self.videos} if format == "VIDEO" else None
        self.reader = open_reader(format, root, reader_options, lengths=lengths)
        self.num_segments = num_segments
        self.clip_length = clip_length
        self.num_steps = num_steps
        self.time_crop = time_crop
        self.train = train
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.seed = seed
        self.on_bad_sample = on_bad_sample
        self.bad_videos = BadVideos(len(self.videos), max_bad_fraction)
        self._cached_clip: tuple[tuple[int, int], np.ndarray] | None = None  # ((video, clip), frames)

    @property
    def views(self) -> int:
        """Samples of each video: num_clips * num_crops, which is 1 in training."""
        return self.num_clips * self.num_crops

    @property
    def index_digest(self) -> str:
        """Of the index of the shards, on which the order of a training depends; empty for formats without shards."""
        return self.reader.digest if isinstance(self.reader, ShardedVideos) else ""

    @property
    def shards(self) -> list[int]:
        """The number of each video's shard; empty for formats without shards."""
        if not isinstance(self.reader, ShardedVideos):
            return []
        return [self.reader.shard_of(video.path) for video in self.videos]

    def relabel(self, labels: Sequence[int]) -> None:
        """Replaces each label by labels[label], where the numbers of the list mean other classes than the network's."""
        self.videos = [replace(video, label=labels[video.label]) for video in self.videos]

    def __len__(self) -> int:
        return len(self.videos) * self.views

    def __getitem__(self, key: int | tuple[int, ...]) -> Sample:
        """One sample.

        Args:
            key: index, or (index, epoch), or (index, epoch, repeat); epoch and repeat are 0 by default. Only training
                uses epoch, and repeat, the number of the draw within an epoch.

        Raises:
            DataError: a frame is missing or broken.
            IndexError: the index is out of range.
        """
        keys = key if isinstance(key, tuple) else (key,)
        index, epoch, repeat, later = (*keys, *(0, 0, -1)[len(keys) - 1 :])
        if later >= 0 and isinstance(self.reader, ShardedVideos):
            self.reader.prepare(self.videos[later].path)
        if not 0 <= index < len(self):
            raise IndexError(f"the index must be in 0..{len(self) - 1}, got {index}")
        if self.train:
            return self._train_sample(index, epoch, repeat)
        return self._view(index), self.videos[index // self.views].label, index

    def _train_sample(self, index: int, epoch: int, repeat: int) -> Sample:
        """A random clip of a video; if it cannot be read and may be replaced, of the first drawn video that can."""
        numbers: tuple[int, ...] = (self.seed, epoch, index, repeat) if repeat else (self.seed, epoch, index)
        attempt = 0
        video = index
        while True:
            try:
                return self._random_clip(video, _derive_seed(*numbers)), self.videos[video].label, video
            except DataError as error:
                if self.on_bad_sample == "raise" or isinstance(error, ShardError):
                    raise
                self.bad_videos.add(video, error)
            # At least one video can be read, or the line above would have raised.
            attempt += 1
            numbers = (self.seed, epoch, index, repeat, attempt)
            video = _derive_seed(*numbers, 0) % len(self.videos)

    def _random_clip(self, index: int, seed: int) -> Tensor:
        video = self.videos[index]
        with torch.random.fork_rng(devices=[]):
            # Only the CPU's generator: torch.manual_seed would also seed the GPUs', which fork_rng does not restore.
            torch.default_generator.manual_seed(seed)
            positions = train_positions(
                video.num_frames,
                num_segments=self.num_segments,
                clip_length=self.clip_length,
                num_steps=self.num_steps,
                time_crop=self.time_crop,
            )
            return torch.from_numpy(self._transforms[0](self._read(video, positions)))

    def _view(self, index: int) -> Tensor:
        video_index, view = divmod(index, self.views)
        clip, crop = divmod(view, self.num_crops)
        if self._cached_clip is None or self._cached_clip[0] != (video_index, clip):
            video = self.videos[video_index]
            positions = test_positions(
                video.num_frames,
                num_segments=self.num_segments,
                clip_length=self.clip_length,
                num_steps=self.num_steps,
                clip=clip,
                num_clips=self.num_clips,
            )
            # The crops of a clip follow each other: its frames are decoded once for all of them.
            self._cached_clip = (video_index, clip), self._read(video, positions)
        frames = self._cached_clip[1]
        if crop == self.num_crops - 1:
            self._cached_clip = None
        return torch.from_numpy(self._transforms[crop](frames))

    def _read(self, video: Video, positions: list[int]) -> np.ndarray:
        try:
            return self.reader.read(video.path, positions)
        except DataError as error:
            raise type(error)(f"{self.list_file}:{video.line}: {error}") from None


def worker_init(worker_id: int) -> None:
    """For DataLoader's worker_init_fn: one thread for each worker, so that many workers do not compete for the cores.

    The worker ends with its training process. PyTorch sees to it as well, but not with Python's fork server.

    Args:
        worker_id: given by DataLoader, not used.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    end_with_parent()


def _check_views(
    transform: Transform | Sequence[Transform], train: bool, num_clips: int, num_crops: int
) -> list[Transform]:
    """Checks the number of views. Returns a transform for each crop."""
    transforms = [transform] if callable(transform) else list(transform)
    check_at_least_one(num_clips=num_clips, num_crops=num_crops)
    if train and (num_clips, num_crops) != (1, 1):
        raise ValueError(f"training has one view a video, got num_clips {num_clips} and num_crops {num_crops}")
    if len(transforms) != num_crops:
        raise ValueError(f"transform must be one transform a crop, {num_crops}, got {len(transforms)}")
    return transforms


def _derive_seed(*numbers: int) -> int:
    """A seed from several numbers: those of (seed + 1, epoch) and (seed, epoch + 1) have nothing in common."""
    text = " ".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
