"""Inter-frame attention as a module: a convolution predicts the offsets from motion, then the op attends."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cuda_sifa import inter_frame_attention, motion_saliency
from cuda_sifa.checks import check_settings
from models.folding import merge_time, split_time

_SMALLEST_SQUARE = 1e-4  # added to a mean of squares: features near zero stay near it

OffsetInit = Literal["zero", "kaiming"]
OffsetSource = Literal["motion_saliency", "difference", "next_frame", "conv3d", "regular"]


def with_neighbours(clip: Tensor) -> Tensor:
    """Each frame from the second on, stacked with the previous and the next frame; zeros follow the last one.

    A 2D convolution of them equals a 3D convolution of the clip, and fits networks in channels_last.

    Args:
        clip: (N, T, C, H, W).

    Returns:
        (N, T-1, 3*C, H, W), for frames 1..T-1: channels of the previous frame, the frame, the next frame.
    """
    padded = pad(clip, (0, 0) * 3 + (0, 1))
    return torch.cat([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=2)


#: keyword `offset` -> what the offset convolution gets from a clip (N, T, C, H, W): (N, T-1, C or 3*C, H, W).
OFFSET_INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "motion_saliency": motion_saliency,
    "difference": lambda clip: clip[:, 1:] - clip[:, :-1],
    "next_frame": lambda clip: clip[:, 1:],
    "conv3d": with_neighbours,
}


class InterFrameAttention(nn.Module):
    """A clip attends to itself one frame ahead: `clip + InterFrameAttention(C)(clip)` is the paper's SIFA.

    `InterFrameAttention(C)(clip, residual=True)` is the same, in one pass over memory unless the result is changed on
    the way (`branch_scale`, `cosine`, `projection`).

    A 3x3 convolution of the motion saliency map predicts, at every position of frame t+1, the displacements of the
    k*k taps that the same position of frame t attends to. They start at zero, the regular neighbourhood.

    Args:
        channels: C.
        kernel_size: k, odd; the neighbourhood has k*k taps.
        dilation: distance between taps in pixels.
        groups: heads, see `cuda_sifa.inter_frame_attention`.
        offset: input of the convolution. "motion_saliency"; "difference": f[t+1] - f[t]; "next_frame": f[t+1];
            "conv3d": the clip itself, with a 3x3x3 convolution (the paper does not give its kernel); "regular": no
            convolution, the neighbourhood stays regular.
        offset_init: "zero" as the paper intends, or "kaiming" as in the release, whose network-wide initialisation
            overwrites the zeros with normal values (fan_out), so that its offsets start at several pixels.
        branch_scale: start of a learned factor of each channel of the result. None as in the paper: no factor. The
            result is cubic in the features, so it can be far from their size when training starts; a small factor
            tames it.
        cosine: attend with features divided by their root mean square over the channels (of a head), so that the
            weight of a tap is the cosine of query and key, and take the mean over the taps instead of the sum. Not in
            the paper: its weights grow with the features, and the result with their cube. Offsets are predicted from
            these features as well.
        projection: a 1x1 convolution of the result, which starts at zero. Not in the paper: there the next frame is
            added channel by channel, and no layer can weigh it against this frame.

    Shape:
        (N, T, C, H, W) to (N, T, C, H, W), zeros for the last frame; plus the clip if `residual`.

    Raises:
        ValueError: an argument, or the shape or dtype of a clip, is not as above.
    """

    offset: nn.Conv2d | None
    scale: nn.Parameter | None
    projection: nn.Conv2d | None

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        *,
        dilation: int = 1,
        groups: int = 1,
        offset: OffsetSource = "motion_saliency",
        offset_init: OffsetInit = "zero",
        branch_scale: float | None = None,
        cosine: bool = False,
        projection: bool = False,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be positive, got {channels}")
        check_settings(channels, kernel_size, dilation, groups)
        if offset not in get_args(OffsetSource):
            raise ValueError(f"offset must be one of {', '.join(get_args(OffsetSource))}, got {offset!r}")
        if offset_init not in get_args(OffsetInit):
            raise ValueError(f"offset_init must be zero or kaiming, got {offset_init!r}")
        if branch_scale is not None and not 0 <= branch_scale < math.inf:
            raise ValueError(f"branch_scale must be a finite number of at least 0, got {branch_scale}")
        if branch_scale is not None and projection:
            raise ValueError("branch_scale and projection exclude each other: the projection starts at zero by itself")
        self.channels, self.kernel_size, self.dilation, self.groups = channels, kernel_size, dilation, groups
        self.offset_source: OffsetSource = offset
        self.offset_init: OffsetInit = offset_init
        self.branch_scale, self.cosine = branch_scale, cosine
        self.scale = None if branch_scale is None else nn.Parameter(torch.empty(channels))
        self.projection = nn.Conv2d(channels, channels, kernel_size=1, bias=False) if projection else None
        self.offset = None
        if offset != "regular":
            in_channels = 3 * channels if offset == "conv3d" else channels
            self.offset = nn.Conv2d(in_channels, 2 * kernel_size**2, kernel_size=3, padding=1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises the offset convolution as `offset_init` says, the factor and the projection."""
        if self.scale is not None and self.branch_scale is not None:
            nn.init.constant_(self.scale, self.branch_scale)
        if self.projection is not None:
            nn.init.zeros_(self.projection.weight)
        if self.offset is None:
            return
        if self.offset_init == "zero":
            nn.init.zeros_(self.offset.weight)
        else:
            nn.init.kaiming_normal_(self.offset.weight, mode="fan_out", nonlinearity="relu")

    def features(self, clip: Tensor) -> Tensor:
        """What of a clip (N, T, C, H, W) is query, key and value: with `cosine` each head has mean square 1."""
        if not self.cosine:
            return clip
        heads = clip.unflatten(2, (self.groups, -1))
        wide = heads.to(torch.promote_types(clip.dtype, torch.float32))  # squares overflow in float16
        # The mean of the squares becomes 1, not their sum: the op divides <query, key> by the number of channels.
        factors = torch.rsqrt(wide.square().mean(3, keepdim=True) + _SMALLEST_SQUARE)
        return (heads * factors.to(clip.dtype)).flatten(2, 3)

    def predict_offset(self, clip: Tensor) -> Tensor | None:
        """The offsets of a clip.

        Args:
            clip: (N, T, C, H, W).

        Returns:
            (N, T-1, 2*k*k, H, W), in pixels, of the weights' dtype, under autocast as well; channels 2j and 2j+1 are
            the vertical and horizontal displacement of tap j. None if the neighbourhood is regular.

        Raises:
            ValueError: the shape or dtype of the clip does not fit.
        """
        self._check(clip)
        return self._offset_of(self.features(clip))

    def _offset_of(self, features: Tensor) -> Tensor | None:
        if self.offset is None:
            return None
        n, frames, _, h, w = features.shape
        if frames == 1:
            # There is no pair of frames. The result depends on the weights all the same, so that every parameter has a
            # gradient in distributed training.
            weight = self.offset.weight
            return weight.new_zeros(n, 0, 2 * self.kernel_size**2, h, w) + weight.sum() * 0
        maps = merge_time(OFFSET_INPUTS[self.offset_source](features))
        return split_time(_without_autocast(self.offset, maps), frames - 1)

    def _check(self, clip: Tensor) -> None:
        """Raises ValueError here: the convolution's own message would be about maps with merged time."""
        if clip.dim() != 5 or clip.shape[2] != self.channels:
            raise ValueError(f"clip must be (N, T, C, H, W) with C = {self.channels}, got {tuple(clip.shape)}")
        layer = self.offset or self.projection
        if layer is None:
            return  # the op accepts every size and checks the dtype itself
        if clip.shape[1] == 0 or clip.shape[3] == 0 or clip.shape[4] == 0:
            raise ValueError(f"clip must be (N, T, C, H, W) with T, H and W above 0, got {tuple(clip.shape)}")
        dtype = layer.weight.dtype
        if clip.dtype == dtype:
            return
        # Under autocast clip and weights may differ, but float64 stays as it is.
        if torch.float64 in (clip.dtype, dtype) or not _is_autocast(clip.device.type):
            raise ValueError(f"clip must have the dtype of the module's weights, {dtype}, got {clip.dtype}")

    def forward(self, clip: Tensor, *, residual: bool = False) -> Tensor:
        self._check(clip)
        features = self.features(clip)
        neighbourhood = self._offset_of(features), self.kernel_size, self.dilation, self.groups
        if not self.cosine and self.scale is None and self.projection is None:
            return inter_frame_attention(clip, *neighbourhood, residual=residual)
        attended = inter_frame_attention(features, *neighbourhood)
        if self.cosine:
            attended = attended / self.kernel_size**2
        if self.projection is not None:
            attended = split_time(self.projection(merge_time(attended)), clip.shape[1]).to(clip.dtype)
        if self.scale is None:
            return clip + attended if residual else attended
        scale = self.scale.to(clip.dtype)[:, None, None]
        return torch.addcmul(clip, attended, scale) if residual else attended * scale

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, groups={self.groups}, "
            f"offset={self.offset_source}, cosine={self.cosine}"
        )


def _without_autocast(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """The convolution in the dtype of its weights.

    bfloat16 would round an offset of 3 pixels to a multiple of 1/64 pixel, which changes the attended features as much
    as their own rounding does.
    """
    if not _is_autocast(maps.device.type):
        return conv(maps)
    with torch.autocast(maps.device.type, enabled=False):
        return conv(maps.to(conv.weight.dtype))


def _is_autocast(device_type: str) -> bool:
    """Whether the code runs under autocast. Devices without it, such as "meta", make PyTorch's function fail."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
