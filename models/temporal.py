"""Temporal modules of a block: SIFA, or what the paper compares it with; `TemporalModelling.module` chooses.

Every module maps a clip (N, T, C, H, W) to a term of the same shape, which the block adds to the clip. Its weights, if
any, start at zero: random ones would disturb a network that is initialised from image weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cuda_sifa.checks import MAX_KERNEL_SIZE
from models.folding import merge_time, split_time
from models.sifa import InterFrameAttention, OffsetInit, OffsetSource

Stage = Literal["res2", "res3", "res4", "res5"]
Temporal = Literal["sifa", "centre", "conv", "shift", "correlation", "difference", "none"]

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


class TemporalCorrelation(nn.Module):
    """Correlation (after Wang et al. 2020): how alike a position is to its neighbours in the next frame, as features.

    At every position p, c_j = <f_t(p), f_{t+1}(p + tap_j)> / C for the k*k taps of a regular neighbourhood, zero
    outside the map; a 1x1 convolution maps these k*k values to C channels. SIFA_R weights values with the same
    products, here they are the result. The convolution starts at zero, so that `clip + TemporalCorrelation(C)(clip)`
    is the clip at first.

    Args:
        channels: C.
        kernel_size: k, odd.

    Shape:
        (N, T, C, H, W) to (N, T, C, H, W), zeros for the last frame.
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.conv = nn.Conv2d(kernel_size**2, channels, kernel_size=1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.conv.weight)

    def forward(self, clip: Tensor) -> Tensor:
        height, width = clip.shape[3:]
        # A sum over channels of products: half precision would overflow and lose digits.
        wide = clip.to(torch.promote_types(clip.dtype, torch.float32))
        frame, following = wide[:, :-1], pad(wide[:, 1:], (self.kernel_size // 2,) * 4)
        products = [
            (frame * following[..., row : row + height, column : column + width]).mean(2)
            for row in range(self.kernel_size)
            for column in range(self.kernel_size)
        ]
        maps = torch.stack(products, dim=2).to(clip.dtype)  # (N, T-1, k*k, H, W)
        return _pointwise_with_empty_last_frame(self.conv, maps)


class TemporalDifference(nn.Module):
    """Temporal difference (after Jiang et al. 2019): what of the next frame is not in this one.

    d_t = K * f_{t+1} - f_t, where K is a 3x3 kernel for each channel, which can follow motion of a pixel. A 1x1
    convolution maps it to C channels. K starts as the identity and the convolution at zero, so that
    `clip + TemporalDifference(C)(clip)` is the clip at first.

    Args:
        channels: C.

    Shape:
        (N, T, C, H, W) to (N, T, C, H, W), zeros for the last frame.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.align = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False)
        self.conv = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.align.weight)
        with torch.no_grad():
            self.align.weight[:, :, 1, 1] = 1
        nn.init.zeros_(self.conv.weight)

    def forward(self, clip: Tensor) -> Tensor:
        aligned = split_time(self.align(merge_time(clip)), clip.shape[1])  # of all frames: a view of them, no copy
        return _pointwise_with_empty_last_frame(self.conv, aligned[:, 1:] - clip[:, :-1])


def _pointwise_with_empty_last_frame(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """A 1x1 convolution (N, T-1, K, H, W) -> (N, T, C, H, W), with zeros for the last frame, which has no next one."""
    branch = conv(merge_time(maps)).unflatten(0, maps.shape[:2])
    return pad(branch, (0, 0) * 3 + (0, 1))


@dataclass(frozen=True)
class TemporalModelling:
    """Where and how a network models time; the section SIFA of a configuration.

    Args:
        sifa_kernel: neighbourhood size k in res2..res5.
        stages: the stages that model time; the others are those of the 2D network.
        temporal: the module in SIFA's position. "sifa"; "centre": attention to the co-located position alone (the
            paper's SIFA_C); "conv": temporal convolution; "shift": temporal shift; "correlation": products with the
            regular neighbourhood of size `sifa_kernel`; "difference": temporal difference; "none": no module.
        offset: what predicts SIFA's offsets, see `InterFrameAttention`.
        offset_init: how the weights of that prediction start, see `InterFrameAttention`.
        branch_scale: start of a learned factor of what attention adds, see `InterFrameAttention`.
        cosine: whether the weights of attention are cosines, see `InterFrameAttention`.
        projection: whether a convolution follows attention, see `InterFrameAttention`.

    Raises:
        ValueError: a value is not as above.
    """

    sifa_kernel: Sequence[int] = (3, 3, 3, 3)
    stages: Sequence[Stage] = STAGES
    temporal: Temporal = "sifa"
    offset: OffsetSource = "motion_saliency"
    offset_init: OffsetInit = "zero"
    branch_scale: float | None = None
    cosine: bool = False
    projection: bool = False

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
        if self.changes_to_attention and not self.is_attention:
            names = " and ".join(self.changes_to_attention)
            raise ValueError(f"temporal {self.temporal} has no attention, so it does not go with {names}")

    @property
    def is_attention(self) -> bool:
        """Whether the module is attention, whose output is cubic in its input."""
        return self.temporal in ("sifa", "centre")

    @property
    def changes_to_attention(self) -> dict[str, Any]:
        """The options that make attention another than the paper's."""
        changes = {"branch_scale": self.branch_scale, "cosine": self.cosine, "projection": self.projection}
        return {name: value for name, value in changes.items() if value is not None and value is not False}

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
            return InterFrameAttention(
                channels,
                kernel_size,
                offset=self.offset,
                offset_init=self.offset_init,
                **self.changes_to_attention,
            )
        if self.temporal == "centre":
            return InterFrameAttention(channels, 1, offset="regular", **self.changes_to_attention)
        if self.temporal == "correlation":
            return TemporalCorrelation(channels, self.sifa_kernel[STAGES.index(stage)])
        if self.temporal == "difference":
            return TemporalDifference(channels)
        if self.temporal == "conv":
            return TemporalConv(channels)
        return TemporalShift() if self.temporal == "shift" else None


def add_temporal(module: nn.Module, clip: Tensor) -> Tensor:
    """clip + module(clip), for a temporal module; attention adds the clip itself, in its pass over memory."""
    if isinstance(module, InterFrameAttention):
        return module(clip, residual=True)
    return clip + module(clip)


def reset_temporal_modules(network: nn.Module) -> None:
    """Gives temporal modules their own initial weights, after an initialisation of all convolutions of a network."""
    for module in network.modules():
        if isinstance(module, InterFrameAttention | TemporalConv | TemporalCorrelation | TemporalDifference):
            module.reset_parameters()
