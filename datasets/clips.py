"""The dataset: a list file and its frames as clips, random ones for training, every view in turn for evaluation."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import DataError
from datasets.annotations import Video, read_list
from datasets.bad_videos import BadVideos
from datasets.readers import Format, open_reader
from datasets.sampling import test_positions, train_positions
from datasets.transforms import Transform


class ClipDataset(Dataset[tuple[Tensor, int, int]]):
    """Clips of the videos of a list file.

    Sample: (clip, label, index). The clip is what the transform makes of the frames, uint8 (T, H, W, 3), RGB, with
    T = num_segments * clip_length: for the transforms of this package uint8 (T, crop_size, crop_size, 3). `normalise`
    turns a batch of them into the network's input, on its device.

    Training (train=True): a sample is one random clip of one video. Everything random about it, position and
    augmentation, is a function of (seed, epoch, index) alone: the same in whichever order, worker or process.
    Evaluation: a sample is a view, with index = video * views + clip * num_crops + crop, views = num_clips * num_crops.

    list_file, num_classes: see `read_list`. root, format, frame_template, first_frame: see `open_reader`.
    num_segments, clip_length, num_steps, num_clips: see `datasets.sampling`.
    transform: one transform; for num_crops > 1 a sequence of num_crops transforms, one a crop.

    on_bad_sample: what happens in training where a video cannot be read. "raise": the error; "replace": another video
        is drawn in its place, and the sample has that one's label and index. Which one is a function of (seed, epoch,
        index) too, given the same files. In evaluation it is always the error: a metric is over every video or none.
    max_bad_fraction: the share of the list's videos that may be replaced, in [0, 1); one more is an error.

    Raises DataError for what is wrong with the list or the root, and on access for a frame that is missing or broken,
    with list file, line and frame file in its text; ValueError for arguments that contradict each other.
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
        seed: int = 0,
        format: Format = "FRAME",
        frame_template: str = "",
        first_frame: int = 1,
        on_bad_sample: Literal["raise", "replace"] = "raise",
        max_bad_fraction: float = 0.01,
    ) -> None:
        transforms = [transform] if callable(transform) else list(transform)
        for name, value in (
            ("num_segments", num_segments),
            ("clip_length", clip_length),
            ("num_steps", num_steps),
            ("num_clips", num_clips),
            ("num_crops", num_crops),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if train and (num_clips, num_crops) != (1, 1):
            raise ValueError(f"training has one view a video, got num_clips {num_clips} and num_crops {num_crops}")
        if len(transforms) != num_crops:
            raise ValueError(f"transform must be one transform a crop, {num_crops}, got {len(transforms)}")
        if on_bad_sample not in ("raise", "replace"):
            raise ValueError(f"on_bad_sample must be raise or replace, got {on_bad_sample!r}")
        self.list_file = list_file
        self.videos: list[Video] = read_list(list_file, num_classes=num_classes)
        self.frames = open_reader(format, root, frame_template=frame_template, first_frame=first_frame)
        self.num_segments = num_segments
        self.clip_length = clip_length
        self.num_steps = num_steps
        self.train = train
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.seed = seed
        self.on_bad_sample = on_bad_sample
        self.bad_videos = BadVideos(len(self.videos), max_bad_fraction)
        self._transforms = transforms
        self._clip_read: tuple[tuple[int, int], np.ndarray] | None = None

    @property
    def views(self) -> int:
        """Samples a video: num_clips * num_crops, which is 1 in training."""
        return self.num_clips * self.num_crops

    def relabel(self, labels: Sequence[int]) -> None:
        """Replaces each label by labels[label], where the numbers of the list mean other classes than the network's."""
        self.videos = [replace(video, label=labels[video.label]) for video in self.videos]

    def __len__(self) -> int:
        return len(self.videos) * self.views

    def __getitem__(self, key: int | tuple[int, ...]) -> tuple[Tensor, int, int]:
        """The sample `index`, or (index, epoch), or (index, epoch, repeat); what is left out is 0.

        Epoch and repeat, the number of the draw within an epoch, only matter in training.
        """
        index, epoch, repeat, *_ = (*key, 0, 0) if isinstance(key, tuple) else (key, 0, 0)
        if not 0 <= index < len(self):
            raise IndexError(f"the index must be in 0..{len(self) - 1}, got {index}")
        if not self.train:
            return self._view(index), self.videos[index // self.views].label, index
        draw: tuple[int, ...] = (self.seed, epoch, index, repeat) if repeat else (self.seed, epoch, index)
        attempt = 0
        while True:
            try:
                return self._train_clip(index, _mix(*draw)), self.videos[index].label, index
            except DataError as error:
                if self.on_bad_sample == "raise":
                    raise
                self.bad_videos.add(index, error)
            # There is a good one left, or the line above would have raised.
            attempt += 1
            draw = (self.seed, epoch, draw[2], repeat, attempt)
            index = _mix(*draw, 0) % len(self.videos)

    def _train_clip(self, index: int, seed: int) -> Tensor:
        video = self.videos[index]
        with torch.random.fork_rng(devices=[]):
            # The CPU's generator alone: torch.manual_seed would reseed the GPUs' too, which fork_rng does not restore.
            torch.default_generator.manual_seed(seed)
            positions = train_positions(
                video.num_frames,
                num_segments=self.num_segments,
                clip_length=self.clip_length,
                num_steps=self.num_steps,
            )
            return torch.from_numpy(self._transforms[0](self._read(video, positions)))

    def _view(self, index: int) -> Tensor:
        number, view = divmod(index, self.views)
        clip, crop = divmod(view, self.num_crops)
        if self._clip_read is None or self._clip_read[0] != (number, clip):
            video = self.videos[number]
            positions = test_positions(
                video.num_frames,
                num_segments=self.num_segments,
                clip_length=self.clip_length,
                num_steps=self.num_steps,
                clip=clip,
                num_clips=self.num_clips,
            )
            # The crops of a clip come in a row: its frames are decoded once for all of them.
            self._clip_read = (number, clip), self._read(video, positions)
        frames = self._clip_read[1]
        if crop == self.num_crops - 1:
            self._clip_read = None
        return torch.from_numpy(self._transforms[crop](frames))

    def _read(self, video: Video, positions: list[int]) -> np.ndarray:
        try:
            return self.frames.read(video.path, positions)
        except DataError as error:
            raise DataError(f"{self.list_file}:{video.line}: {error}") from None


def worker_init(worker_id: int) -> None:
    """For DataLoader's worker_init_fn: one thread a worker, so that many workers do not fight over the cores."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _mix(*numbers: int) -> int:
    """A seed out of several numbers, such that (seed + 1, epoch) and (seed, epoch + 1) have nothing in common."""
    text = " ".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
