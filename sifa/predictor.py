"""A trained network from its checkpoint alone, which carries configuration and class names.

predictor = sifa.load("output/demo/checkpoints/last.pth")
probabilities = predictor.predict("video.mp4")
print(predictor.classes[probabilities.argmax()])
"""

import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError, UserError
from datasets.normalisation import normalise
from datasets.sampling import test_positions
from datasets.transforms import test_transform
from datasets.video_files import VideoFiles
from engine.checkpoint import class_names_of, load_weights, read_checkpoint, weights
from engine.config import checkpoint_config
from engine.metrics import mean_softmax
from engine.schema import Config
from models import Network
from sifa.build import build_network
from sifa.trained_settings import trained_on

BATCH = 8  # views at once: enough to keep a CPU busy, little memory


@dataclass(frozen=True)
class Predictor:
    """A trained network in eval mode, with what it takes to classify videos.

    Args:
        model: the network in eval mode, on `device`. It takes (N, 3, T, S, S) and returns a tuple of logits
            (N, classes), one for each head.
        classes: a name for each class; its number where the checkpoint has no names.
        config: the configuration of its training.
        device: of the network.
        num_clips, num_crops: the views of a video, whose probabilities are averaged.
        trained_on: the data of the training, for instance `drawn moving shapes: 8 classes, 800 videos`.
    """

    model: Network
    classes: list[str]
    config: Config
    device: torch.device
    num_clips: int
    num_crops: int
    trained_on: str = ""

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

    def crops(self, frames: np.ndarray, size: int = 0) -> Tensor:
        """Frames uint8 (T, H, W, 3), RGB, as the crops of the validation: uint8 (num_crops, T, S, S, 3).

        Args:
            size: S in pixels, 0 for the network's own; the crop is the same, its resolution is not.

        Raises:
            ValueError: frames is not a uint8 array (T, H, W, 3).
        """
        if not (
            isinstance(frames, np.ndarray)
            and frames.dtype == np.uint8
            and frames.ndim == 4
            and frames.shape[3] == 3
            and frames.size > 0
        ):
            given = f"{frames.dtype} {tuple(frames.shape)}" if isinstance(frames, np.ndarray) else type(frames).__name__
            raise ValueError(f"frames must be a NumPy array uint8 (T, H, W, 3), got {given}")
        crops = [test_transform(size or self.size, crop, self.num_crops) for crop in range(self.num_crops)]
        return torch.stack([torch.from_numpy(crop(frames)) for crop in crops])

    def normalise(self, crops: Tensor) -> Tensor:
        """Crops uint8 (N, T, S, S, 3) as the network takes them: float32 (N, 3, T, S, S), on its device."""
        return normalise(crops.to(self.device))

    def transform(self, frames: np.ndarray) -> Tensor:
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

    def views(self, video: str | os.PathLike[str], num_frames: int | None = None) -> Tensor:
        """All views of a video, uint8 (num_clips * num_crops, T, S, S, 3), the crops of a clip in a row.

        Args:
            num_frames: length of the video from `count_frames`; None: it is counted here.

        Raises:
            DataError: the video is missing, does not decode or has fewer than two frames.
        """
        video = Path(video)
        positions = self.positions(num_frames or count_frames(video))
        frames = VideoFiles(video.parent).read(video.name, list(chain(*positions)))  # decodes once
        clips = frames.reshape(len(positions), self.frames, *frames.shape[1:])
        return torch.cat([self.crops(clip) for clip in clips])

    @torch.inference_mode()
    def probabilities(self, views: Tensor) -> Tensor:
        """The mean of the heads' softmaxes for each of N views, uint8 (N, T, S, S, 3): (N, classes), on the CPU.

        Raises:
            UserError: they are not finite.
        """
        scores = torch.cat([mean_softmax(self.model(self.normalise(batch))).cpu() for batch in views.split(BATCH)])
        if not scores.isfinite().all():
            raise UserError(f"the network answers with {scores.flatten()[0]:g}: its weights are no use")
        return scores

    def predict(self, video: str | os.PathLike[str]) -> Tensor:
        """The probabilities (classes,) of a video, as the validation averages them: over heads, then over views.

        Raises:
            DataError: the video is missing, does not decode or has fewer than two frames.
            UserError: the probabilities are not finite.
        """
        return self.probabilities(self.views(video)).mean(0)


def load(
    checkpoint: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    num_clips: int | None = None,
    num_crops: int | None = None,
) -> Predictor:
    """The network of a checkpoint of `train_val_3d.py`, in eval mode. Nothing in the file is executed.

    Args:
        checkpoint: file; its averaged weights ("ema") have priority over "model".
        device: of the network.
        num_clips, num_crops: views of a video, any number of clips and 1 crop or 3; None: as in the checkpoint's own
            validation.

    Raises:
        ValueError: num_clips or num_crops has an impossible value.
        UserError: the file is missing, damaged or no checkpoint; it has no configuration or that of another version;
            or there is no such device.
    """
    if num_clips is not None and not (isinstance(num_clips, int) and num_clips >= 1):
        raise ValueError(f"num_clips must be a positive integer, got {num_clips!r}")
    if num_crops is not None and not (isinstance(num_crops, int) and num_crops in (1, 3)):
        raise ValueError(f"num_crops must be 1 (centre) or 3 (along the longer side), got {num_crops!r}")
    path = Path(checkpoint)
    contents = read_checkpoint(path)
    config = checkpoint_config(contents, path)
    num_classes = config.dataset.num_classes
    model = build_network(config)
    load_weights(model, weights(contents, path), path)
    try:
        model = model.eval().to(device)
    except (RuntimeError, AssertionError) as error:  # a PyTorch without CUDA asserts
        raise UserError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from None
    return Predictor(
        model=model,
        classes=class_names_of(contents, path, num_classes) or [str(label) for label in range(num_classes)],
        config=config,
        device=torch.device(device),
        num_clips=num_clips or config.evaluation.eva_num_clips,
        num_crops=num_crops or config.evaluation.eva_num_crop,
        trained_on=trained_on(contents, config, path),
    )


def count_frames(video: str | os.PathLike[str]) -> int:
    """How many frames of a video file decode.

    Raises:
        DataError: the video is missing, does not decode or has fewer than two frames.
    """
    video = Path(video)
    frames = VideoFiles(video.parent).count(video.name)
    if frames < 2:
        raise DataError(f"the video {video} has a single frame: motion takes two")
    return frames
