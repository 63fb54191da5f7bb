"""Temporal modules of a block: SIFA, or what the paper compares it with; `TemporalModelling.module` chooses.

Every module maps a clip (N, T, C, H, W) to a term of the same shape, which the block adds to the clip. Its weights, if
any, start at zero: random ones would disturb a network that is initialised from image weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cuda_sifa.checks import MAX_KERNEL_SIZE
from models.sifa import InterFrameAttention, OffsetInit, OffsetSource

Stage = Literal["res2", "res3", "res4", "res5"]
Temporal = Literal["sifa", "centre", "conv", "shift", "none"]

STAGES: tuple[Stage, ...] = get_args(Stage)


class TemporalConv(nn.Module):
    """Convolution over the frames at each position: kernel 3, C to C channels, no bias, zeros outside the clip.

    Its weights start at zero, so that `clip + TemporalConv(C)(clip)` is the clip at first.

    Args:
        channels: C.

    Shape:
        (N, T, C, H, W) to (N, T, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=(3, 1), padding=(1, 0), bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.conv.weight)

    def forward(self, clip: Tensor) -> Tensor:
        height, width = clip.shape[3:]
        lines = clip.transpose(1, 2).flatten(3)  # (N, C, T, H*W), a view in channels_last
        return self.conv(lines).unflatten(3, (height, width)).transpose(1, 2)


class TemporalShift(nn.Module):
    """Temporal shift (Lin et al. 2019): an eighth of the channels from the previous frame, an eighth from the next.

    `clip + TemporalShift()(clip)` is the shifted clip. Outside the clip there are zeros.

    Shape:
        (N, T, C, H, W) to (N, T, C, H, W).
    """

    def forward(self, clip: Tensor) -> Tensor:
        part = clip.shape[2] // 8
        previous = pad(clip[:, :-1, :part], (0, 0) * 3 + (1, 0))
        following = pad(clip[:, 1:, part : 2 * part], (0, 0) * 3 + (0, 1))
        change = torch.cat([previous, following], dim=2) - clip[:, :, : 2 * part]
        return pad(change, (0, 0) * 2 + (0, clip.shape[2] - 2 * part))


@dataclass(frozen=True)
class TemporalModelling:
    """Where and how a network models time; the section SIFA of a configuration.

    Args:
        sifa_kernel: neighbourhood size k in res2..res5.
        stages: the stages that model time; the others are those of the 2D network.
        temporal: the module in SIFA's position. "sifa"; "centre": attention to the co-located position alone (the
            paper's SIFA_C); "conv": temporal convolution; "shift": temporal shift; "none": no module.
        offset: what predicts SIFA's offsets, see `InterFrameAttention`.
        offset_init: how the weights of that prediction start, see `InterFrameAttention`.

    Raises:
        ValueError: a value is not as above.
    """

    sifa_kernel: Sequence[int] = (3, 3, 3, 3)
    stages: Sequence[Stage] = STAGES
    temporal: Temporal = "sifa"
    offset: OffsetSource = "motion_saliency"
    offset_init: OffsetInit = "zero"

    def __post_init__(self) -> None:
        if len(self.sifa_kernel) != len(STAGES):
            raise ValueError(f"sifa_kernel must have four sizes, for res2..res5, got {tuple(self.sifa_kernel)}")
        if any(k < 1 or k > MAX_KERNEL_SIZE or k % 2 == 0 for k in self.sifa_kernel):
            raise ValueError(
                f"sifa_kernel must be odd sizes between 1 and {MAX_KERNEL_SIZE}, got {tuple(self.sifa_kernel)}"
            )
        if not set(self.stages) <= set(STAGES):
            raise ValueError(f"stages must be among {', '.join(STAGES)}, got {tuple(self.stages)}")
        if self.temporal not in get_args(Temporal):
            raise ValueError(f"temporal must be one of {', '.join(get_args(Temporal))}, got {self.temporal!r}")

    @property
    def is_attention(self) -> bool:
        """Whether the module is attention, whose output is cubic in its input."""
        return self.temporal in ("sifa", "centre")

    def covers(self, stage: Stage) -> bool:
        """Whether a stage models time."""
        return stage in self.stages

    def module(self, stage: Stage, channels: int) -> nn.Module | None:
        """Makes the temporal module of a block; None if there is none.

        Args:
            stage: of the block.
            channels: C of the clips (N, T, C, H, W) that the module maps.
        """
        if self.temporal == "sifa":
            kernel_size = self.sifa_kernel[STAGES.index(stage)]
            return InterFrameAttention(channels, kernel_size, offset=self.offset, offset_init=self.offset_init)
        if self.temporal == "centre":
            return InterFrameAttention(channels, 1, offset="regular")
        if self.temporal == "conv":
            return TemporalConv(channels)
        return TemporalShift() if self.temporal == "shift" else None


def reset_temporal_modules(network: nn.Module) -> None:
    """Gives temporal modules their own initial weights, after an initialisation of all convolutions of a network."""
    for module in network.modules():
        if isinstance(module, InterFrameAttention | TemporalConv):
            module.reset_parameters()
