"""The base class of the networks: it describes a network to its users, and checks its input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from models.sifa import InterFrameAttention
from models.temporal import STAGES, Stage

STEM_FRAMES = 4  # consecutive frames of a clip that the paper's stems merge into one feature frame
STEM_CENTRE = 2  # which of them an image network's stem sees after inflation, and which stands for them in pictures
STEM_REASON = f"the stem merges {STEM_FRAMES} frames into one"  # why the frames of a clip are a multiple of it


@dataclass(frozen=True)
class Grid:
    """The centres of what the positions of a stage's maps see: pixel = start + stride * position.

    Args:
        stride: distance between neighbouring positions, in pixels of the network's input.
        start: pixel of position 0.
    """

    stride: int
    start: float

    def pixels(self, positions: np.ndarray) -> np.ndarray:
        """The pixel coordinates of positions, element by element."""
        return self.start + self.stride * positions

    def nearest(self, pixel: float, positions: int) -> int:
        """The position that is nearest to a pixel coordinate, in a row or column of this number of positions."""
        return min(max(round((pixel - self.start) / self.stride), 0), positions - 1)


class Network(nn.Module):
    """A network for clips, with a description of itself: its stages, blocks, SIFA modules, heads and maps.

    forward maps clips (N, 3, T, H, W) to a tuple of logits (N, num_classes), one for each head. A subclass defines
    `stage_paths`, `channel_axis` and `grid`.

    Args:
        clip_length: frames of a clip in training.
        frame_multiple: the number of frames of every clip is a multiple of this.
        frame_multiple_reason: why, for the error message.
        stem_frames: consecutive frames of a clip that the stem merges into one feature frame.
        caffe_style: whether image weights for the network are of the kind of Caffe's ResNet of 2015.
        classifiers: names of the children that map features to logits.
        duplicated_stages: path of a second copy of a stage -> path of the original; image weights initialise both.
        activation_checkpointing: keep only the input of each block and compute the rest again in the backward pass.

    Raises:
        ValueError: clip_length is not a positive multiple of frame_multiple.
    """

    #: Paths of the modules whose children are the blocks of res2..res5.
    stage_paths: ClassVar[tuple[str, str, str, str]]
    #: Axis of the channels in the output of a block: 2 for (N, T, C, H, W), 4 for (N, T, H, W, C).
    channel_axis: ClassVar[int]

    def __init__(
        self,
        clip_length: int,
        *,
        frame_multiple: int = STEM_FRAMES,
        frame_multiple_reason: str = STEM_REASON,
        stem_frames: int = STEM_FRAMES,
        caffe_style: bool = False,
        classifiers: tuple[str, ...] = ("fc",),
        duplicated_stages: dict[str, str] | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.frame_multiple = frame_multiple
        self.frame_multiple_reason = frame_multiple_reason
        self.stem_frames = stem_frames
        self.caffe_style = caffe_style
        self.check_frames(clip_length)
        self.clip_length = clip_length
        self.classifiers = classifiers
        self.duplicated_stages = duplicated_stages or {}
        self.activation_checkpointing = activation_checkpointing

    # ---- Input and output -------------------------------------------------------------------------------------------

    def check_frames(self, frames: int) -> None:
        """Raises ValueError unless the network takes clips with this number of frames."""
        if frames < 1 or frames % self.frame_multiple != 0:
            raise ValueError(
                f"the frames of a clip must be a positive multiple of {self.frame_multiple} "
                f"({self.frame_multiple_reason}), got {frames}"
            )

    def check_batch(self, clips: Tensor) -> None:
        """Raises ValueError unless clips are (N, 3, T, H, W) with a number of frames that the network takes."""
        if clips.dim() != 5 or clips.shape[1] != 3:
            raise ValueError(f"a batch of clips must be (N, 3, T, H, W), got {tuple(clips.shape)}")
        self.check_frames(clips.shape[2])

    # ---- Description ------------------------------------------------------------------------------------------------

    @property
    def shown_frames(self) -> slice:
        """Of the frames of a clip, those that stand for the feature frames in pictures: one of each."""
        return slice(self.stem_frames // 2, None, self.stem_frames)  # the centre, as STEM_CENTRE of STEM_FRAMES

    def grid(self, stage: str) -> Grid:
        """Where in the clip the positions of a stage's maps are."""
        raise NotImplementedError

    def stage_blocks(self, stage: str) -> list[nn.Module]:
        """The residual blocks of res2..res5, in order; of a stage with a second copy, those of the original."""
        return list(self.get_submodule(self.stage_paths[STAGES.index(stage)]).children())

    def blocks(self) -> list[nn.Module]:
        """The residual blocks of the whole network, in order, second copies of stages included."""
        paths = (*self.stage_paths, *self.duplicated_stages)
        return [block for path in paths for block in self.get_submodule(path).children()]

    def sifa_modules(self, stage: str) -> list[tuple[str, InterFrameAttention]]:
        """The SIFA modules of a stage in order, each with the name of its block; the first block is "block 1"."""
        return [
            (f"block {number}", module)
            for number, block in enumerate(self.stage_blocks(stage), start=1)
            for module in block.modules()
            if isinstance(module, InterFrameAttention)
        ]

    def stages_with_sifa(self) -> list[Stage]:
        """The stages that contain SIFA modules, in order."""
        return [stage for stage in STAGES if self.sifa_modules(stage)]

    def parts(self) -> dict[str, nn.Module]:
        """The modules that together hold all parameters, by path: stem, stages and heads, for tables of their cost."""
        parts: dict[str, nn.Module] = {}
        for name, child in self.named_children():
            if isinstance(child, nn.ModuleList):
                parts |= {f"{name}.{number}": module for number, module in enumerate(child)}
            else:
                parts[name] = child
        return {path: module for path, module in parts.items() if _has_parameters(module)}

    def body(self) -> list[str]:
        """The names of the children that hold parameters, without the classifiers."""
        return [
            name for name, child in self.named_children() if name not in self.classifiers and _has_parameters(child)
        ]


def mean_softmax(logits: Sequence[Tensor]) -> Tensor:
    """The prediction of a network: the mean of the heads' softmaxes.

    Args:
        logits: (N, num_classes) for each head.

    Returns:
        Probabilities (N, num_classes), float32.
    """
    return torch.stack([head.float().softmax(1) for head in logits]).mean(0)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
