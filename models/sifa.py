"""Inter-frame attention as a module: offsets predicted from motion, then the op."""

from typing import Literal

import torch
from torch import Tensor, nn

from cuda_sifa import inter_frame_attention
from models.folding import fold, unfold

OffsetInit = Literal["zero", "kaiming"]


def motion_saliency(clip: Tensor) -> Tensor:
    """Features of each next frame, raised where they differ from the frame before (paper, section 3.1).

    The paper's map is sigmoid(f[t+1] - f[t]) * f[t+1]; like the release we add f[t+1] itself.

    Args:
        clip: (N, T, C, H, W).

    Returns:
        (N, T-1, C, H, W), for frames 1..T-1.
    """
    frame, following = clip[:, :-1], clip[:, 1:]
    return torch.sigmoid(following - frame) * following + following


class InterFrameAttention(nn.Module):
    """A clip attends to itself one frame ahead: `clip + InterFrameAttention(C)(clip)` is the paper's SIFA.

    A 3x3 convolution on the motion saliency map predicts, at every position of frame t+1, the displacement of the
    k*k taps that the same position of frame t attends to. It starts at zero, the regular neighbourhood.

    Args:
        channels: C.
        kernel_size: k, odd: the neighbourhood has k*k taps.
        dilation: distance between taps in pixels.
        groups: heads, see `cuda_sifa.inter_frame_attention`.
        offset_init: "zero" as the paper intends, or "kaiming": the release's network-wide initialisation overwrites
            the zeros with normal values (fan_out), so that its offsets start at several pixels.

    Shape:
        (N, T, C, H, W) to (N, T, C, H, W), zero for the last frame.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        *,
        dilation: int = 1,
        groups: int = 1,
        offset_init: OffsetInit = "zero",
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
        self.kernel_size, self.dilation, self.groups = kernel_size, dilation, groups
        self.offset_init: OffsetInit = offset_init
        self.offset = nn.Conv2d(channels, 2 * kernel_size**2, kernel_size=3, padding=1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.offset_init == "zero":
            nn.init.zeros_(self.offset.weight)
        elif self.offset_init == "kaiming":
            nn.init.kaiming_normal_(self.offset.weight, mode="fan_out", nonlinearity="relu")
        else:
            raise ValueError(f"offset_init must be zero or kaiming, got {self.offset_init!r}")

    def predict_offset(self, clip: Tensor) -> Tensor:
        """(N, T, C, H, W) -> (N, T-1, 2*k*k, H, W), in pixels; vertical and horizontal in turn."""
        saliency = motion_saliency(clip)
        return unfold(self.offset(fold(saliency)), saliency.shape[1]) if saliency.shape[1] else self._no_offset(clip)

    def _no_offset(self, clip: Tensor) -> Tensor:
        # One frame, no pair: still a function of the weights, so that a distributed run finds a gradient for each.
        n, _, _, h, w = clip.shape
        return clip.new_zeros(n, 0, 2 * self.kernel_size**2, h, w) + self.offset.weight.sum().to(clip.dtype) * 0

    def forward(self, clip: Tensor) -> Tensor:
        offset = self.predict_offset(clip)
        return inter_frame_attention(clip, offset, self.kernel_size, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, dilation={self.dilation}, groups={self.groups}"
