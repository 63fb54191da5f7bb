"""What a block does over time: SIFA, or what the paper compares it with, chosen by one function.

Every module here maps a clip (N, T, C, H, W) to what is added to it, of the same shape, and starts (or, for the
shift, stays) without weights that would disturb a network initialised from images.
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
    """Convolution with kernel 3 over the frames at each position, C to C channels, no bias, zeros outside the clip.

    It starts at zero: `clip + TemporalConv(C)(clip)` is the clip at first.
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
    """Temporal shift (Lin et al. 2019): an eighth of the channels from the frame before, an eighth from the next.

    `clip + TemporalShift()(clip)` is the shifted clip. Zeros come in at both ends.
    """

    def forward(self, clip: Tensor) -> Tensor:
        part = clip.shape[2] // 8
        before = pad(clip[:, :-1, :part], (0, 0) * 3 + (1, 0))
        after = pad(clip[:, 1:, part : 2 * part], (0, 0) * 3 + (0, 1))
        moved = torch.cat([before, after], dim=2) - clip[:, :, : 2 * part]
        return pad(moved, (0, 0) * 2 + (0, clip.shape[2] - 2 * part))


@dataclass(frozen=True)
class TemporalModelling:
    """Where and how a network looks over time; the section SIFA of a configuration.

    Args:
        stages: those that model time; the others are the plain 2D network.
        sifa_kernel: neighbourhood size k in res2..res5.
        temporal: sifa; centre: attention to the co-located position alone (the paper's SIFA_C); conv and shift: a
            temporal convolution or shift in SIFA's place; none: nothing there.
        offset: what predicts SIFA's offsets, see `InterFrameAttention`.
        offset_init: how that prediction starts.
    """

    stages: Sequence[Stage]
    sifa_kernel: Sequence[int]
    temporal: Temporal
    offset: OffsetSource
    offset_init: OffsetInit

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
    def attends(self) -> bool:
        return self.temporal in ("sifa", "centre")

    def covers(self, index: int) -> bool:
        """Whether stage `index` (0 is res2) models time."""
        return STAGES[index] in self.stages

    def module(self, index: int, channels: int) -> nn.Module | None:
        """SIFA, or what stands in its place, for a block of stage `index` (0 is res2)."""
        if self.temporal == "sifa":
            return InterFrameAttention(
                channels, self.sifa_kernel[index], offset=self.offset, offset_init=self.offset_init
            )
        if self.temporal == "centre":
            return InterFrameAttention(channels, 1, offset="regular")
        if self.temporal == "conv":
            return TemporalConv(channels)
        return TemporalShift() if self.temporal == "shift" else None


def reset_temporal_modules(network: nn.Module) -> None:
    """Gives temporal modules their own start again, after an initialisation of all convolutions of a network."""
    for module in network.modules():
        if isinstance(module, InterFrameAttention | TemporalConv):
            module.reset_parameters()
