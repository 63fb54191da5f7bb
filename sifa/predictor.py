"""A trained network that classifies videos: files, folders, frames in memory, streams."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from common import cli
from common.errors import DataError, UserError
from datasets.normalisation import normalise
from datasets.one_pass import read_chosen
from datasets.sampling import test_positions
from datasets.transforms import test_transform
from datasets.video_files import VideoFiles
from engine.schema import Config
from engine.threads import cpu_threads, is_narrow
from models import Network
from models.inference import Form
from sifa.batching import Read, Result, in_batches
from sifa.prediction import Prediction
from sifa.video_stream import check_video, find_videos
from sifa.windows import Window, cut_windows

#: Views of a call of the network. Calls of a narrow one, and of a GPU, take as long for many views as for few. To a
#: wide one on the CPU, more views at once bring nothing but later answers.
BATCH, WIDE_BATCH = 16, 4
MOST_READERS = 16  # threads

Video = str | os.PathLike[str] | np.ndarray | Tensor  # a file, or frames uint8 (T, H, W, 3), RGB


@dataclass(frozen=True)
class Predictor:
    """A trained network in eval mode, with what it takes to classify videos.

    Args:
        model: the network in eval mode, on `device`, with the weights of the checkpoint. It takes (N, 3, T, S, S) and
            returns a tuple of logits (N, classes), one for each head.
        classes: a name for each class; its number where the checkpoint has no names.
        config: the configuration of its training.
        device: of the network.
        num_clips, num_crops: the views of a video, whose probabilities are averaged.
        trained_on: the data of the training, for instance `drawn moving shapes: 8 classes, 800 videos`.
        form: computes the predictions of `model`, faster; see `sifa.load`.
        threads: of `form` on the CPU.
    """

    model: Network
    classes: list[str]
    config: Config
    device: torch.device
    num_clips: int
    num_crops: int
    trained_on: str
    form: Form
    threads: int

    @property
    def frames(self) -> int:
        """T, the frames of a clip."""
        return self.config.dataset.num_segments * self.config.dataset.clip_length

    @property
    def span(self) -> int:
        """How many frames a video needs so that no clip of it repeats its last frame."""
        data = self.config.dataset
        return data.num_segments * ((data.clip_length - 1) * data.num_steps + 1)

    @property
    def size(self) -> int:
        """S, height and width of a crop in pixels."""
        return self.config.evaluation.eva_crop_size

    @property
    def batch_size(self) -> int:
        """Views of a call of the network, if the caller of `predict` does not say."""
        narrow = is_narrow(self.model, (self.frames, self.size, self.size))
        return BATCH if narrow or self.device.type != "cpu" else WIDE_BATCH

    # ---- From frames to views ---------------------------------------------------------------------------------------

    def crops(self, frames: np.ndarray | Tensor, size: int = 0) -> Tensor:
        """Frames uint8 (T, H, W, 3), RGB, as the crops of the validation: uint8 (num_crops, T, S, S, 3), on the CPU.

        Args:
            size: S in pixels, 0 for the network's own; the crop is the same, its resolution is not.

        Raises:
            ValueError: frames is not a uint8 array (T, H, W, 3).
        """
        array = _as_array(frames)
        crops = [test_transform(size or self.size, crop, self.num_crops) for crop in range(self.num_crops)]
        return torch.stack([torch.from_numpy(crop(array)) for crop in crops])

    def normalise(self, crops: Tensor) -> Tensor:
        """Crops uint8 (N, T, S, S, 3) as the network takes them: float32 (N, 3, T, S, S), on its device."""
        return normalise(crops.to(self.device))

    def transform(self, frames: np.ndarray | Tensor) -> Tensor:
        """Frames uint8 (T, H, W, 3), RGB, as the network takes them: float32 (num_crops, 3, T, S, S), on its device.

        Raises:
            ValueError: frames is not a uint8 array (T, H, W, 3), or the network cannot take T frames.
        """
        crops = self.crops(frames)
        self.model.check_frames(len(frames))
        return self.normalise(crops)

    def positions(self, num_frames: int) -> list[list[int]]:
        """The 0-based positions of the frames of each clip, num_clips times T, as in the validation."""
        data = self.config.dataset
        return [
            test_positions(
                num_frames,
                num_segments=data.num_segments,
                clip_length=data.clip_length,
                num_steps=data.num_steps,
                clip=clip,
                num_clips=self.num_clips,
            )
            for clip in range(self.num_clips)
        ]

    def views(self, video: Video) -> Tensor:
        """All views of a video, uint8 (num_clips * num_crops, T, S, S, 3), the crops of a clip in a row.

        Args:
            video: a file, or all frames of a video, uint8 (T, H, W, 3), RGB.

        Raises:
            DataError: the video is missing, does not decode or has fewer than two frames.
            ValueError: frames is not a uint8 array (T, H, W, 3).
        """
        return self._read(video).views

    def _read(self, video: Video, decoder_threads: int = 0) -> Read:
        if isinstance(video, np.ndarray | Tensor):
            array = _as_array(video)
            count = len(array)
            clips = [array[positions] for positions in self.positions(count)]
        else:
            check_video(path := Path(video))
            frames, count = read_chosen(path, lambda count: list(chain(*self.positions(count))), decoder_threads)
            clips = list(frames.reshape(self.num_clips, self.frames, *frames.shape[1:]))
        views = torch.cat([self.crops(clip) for clip in clips])
        if count < 2:
            name = "the clip" if isinstance(video, np.ndarray | Tensor) else f"the video {os.fspath(video)}"
            raise DataError(_single_frame(name))
        return Read(views, count)

    # ---- Predictions ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def probabilities(self, views: Tensor, batch_size: int | None = None) -> Tensor:
        """The mean of the heads' softmaxes for each of N views, uint8 (N, T, S, S, 3): (N, classes), on the CPU.

        Args:
            batch_size: views of a call of the network.

        Raises:
            UserError: they are not finite.
        """
        with cpu_threads(self.threads):
            scores = torch.cat(
                [self.form.run(self.normalise(batch)).cpu() for batch in views.split(batch_size or self.batch_size)]
            )
        if not scores.isfinite().all():
            raise UserError(f"the network answers with {scores.flatten()[0]:g}: its weights are no use")
        return scores

    @overload
    def predict(self, videos: np.ndarray | Tensor) -> Tensor: ...
    @overload
    def predict(self, videos: str | os.PathLike[str], **options: int | None) -> Any: ...
    @overload
    def predict(self, videos: Sequence[Video], **options: int | None) -> list[Prediction]: ...
    @overload
    def predict(self, videos: Iterator[np.ndarray | Tensor], **options: int | None) -> Iterator[Window]: ...

    def predict(self, videos: Any, **options: int | None) -> Any:
        """The probabilities of the classes, as the validation averages them: over heads, then over views.

        Args:
            videos: what to predict, and what comes back.
                A file, or frames uint8 (T, H, W, 3), RGB, in NumPy or PyTorch: the probabilities (classes,).
                A list of these, or a folder of videos: a list with a `Prediction` for each, see `predict_many`.
                An iterator of frames (H, W, 3), such as a camera's: an iterator of `Window`, see `predict_windows`.
            **options: of `predict_many` or `predict_windows`.

        Raises:
            DataError: a single video is missing, does not decode or has fewer than two frames.
            UserError: the probabilities are not finite, or the folder has no video.
            ValueError: frames is not a uint8 array (T, H, W, 3).
        """
        if isinstance(videos, Iterator):
            return self.predict_windows(videos, **options)
        if isinstance(videos, list | tuple):
            return list(self.predict_many(videos, **options))
        if isinstance(videos, str | os.PathLike) and Path(videos).is_dir():
            return list(self.predict_many(find_videos([os.fspath(videos)]), **options))
        return self.probabilities(self.views(videos)).mean(0)

    def predict_many(
        self, videos: Iterable[Video], *, batch_size: int | None = None, workers: int | None = None
    ) -> Iterator[Prediction]:
        """Predicts videos in their order, one after the other, while threads decode the next ones.

        An error of one video, such as a missing or damaged file, is in its `Prediction`; the others are predicted.

        Args:
            videos: files, or frames uint8 (T, H, W, 3), RGB.
            batch_size: views of a call of the network; they may be of several videos. None: `self.batch_size`.
            workers: threads that decode. None: one for each core, 16 at most.

        Raises:
            UserError: the probabilities of a video are not finite.
            ValueError: batch_size or workers is below 1.
        """
        batch_size = self.batch_size if batch_size is None else batch_size
        workers = min(cli.cores(), MOST_READERS) if workers is None else workers
        if min(batch_size, workers) < 1:
            raise ValueError(f"batch_size and workers must be at least 1, got {batch_size} and {workers}")
        results = in_batches(
            videos,
            # FFmpeg's own threads cost more than they bring where several videos are decoded at once.
            partial(self._read, decoder_threads=0 if workers == 1 else 1),
            partial(self.probabilities, batch_size=batch_size),
            batch_size=batch_size,
            workers=workers,
            ahead=workers + batch_size // (self.num_clips * self.num_crops),
        )
        return (_prediction(number, result) for number, result in enumerate(results))

    def predict_windows(
        self, frames: Iterable[np.ndarray | Tensor], *, window: int | None = None, stride: int | None = None
    ) -> Iterator[Window]:
        """Predicts every `window` frames of a stream as a video of their own, as soon as they are there.

        Args:
            frames: uint8 (H, W, 3), RGB, one by one.
            window: frames of a window. None: `self.span`. The last window ends with the last frame.
            stride: frames from the start of one window to the next. None: half a window.

        Raises:
            UserError: the probabilities are not finite.
            ValueError: a frame is not a uint8 array (H, W, 3), or window or stride is below 1.
        """
        length = self.span if window is None else window
        crops = (self.crops(frame[None]) for frame in frames)  # each (num_crops, 1, S, S, 3)
        for end, latest in cut_windows(crops, length, max(length // 2, 1) if stride is None else stride):
            clips = [torch.cat([latest[i] for i in positions], dim=1) for positions in self.positions(len(latest))]
            yield Window(end - len(latest), end, self.probabilities(torch.cat(clips)).mean(0))


def _prediction(number: int, result: Result[Video]) -> Prediction:
    source = number if isinstance(result.item, np.ndarray | Tensor) else Path(result.item)
    if result.read is None or result.scores is None:
        return Prediction(source, error=result.error)
    return Prediction(source, result.read.frames, len(result.read.views), result.scores.mean(0))


def _as_array(frames: np.ndarray | Tensor) -> np.ndarray:
    array = frames.cpu().numpy() if isinstance(frames, Tensor) else frames
    given = type(array).__name__
    if isinstance(array, np.ndarray):
        if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3 and array.size > 0:
            return array
        given = f"{array.dtype} {tuple(array.shape)}"
    raise ValueError(f"frames must be a NumPy array or a tensor uint8 (T, H, W, 3), got {given}")


def count_frames(video: str | os.PathLike[str]) -> int:
    """How many frames of a video file decode.

    Raises:
        DataError: the video is missing, does not decode or has fewer than two frames.
    """
    video = Path(video)
    frames = VideoFiles(video.parent).count(video.name)
    if frames < 2:
        raise DataError(_single_frame(f"the video {video}"))
    return frames


def _single_frame(name: str) -> str:
    return f"{name} has a single frame: motion takes two"
