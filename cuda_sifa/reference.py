"""The ops in plain PyTorch: their definition, for tests, for readers, and without compiled op.

Readable rather than fast: one tap after the other, each sampled at four corners. Autograd computes the gradients.
`correlation` and `aggregation` are the two halves of the operation, with the index of the authors' release.
"""

import torch
from torch import Tensor

from cuda_sifa.checks import HALF, check_arguments, check_clip


def inter_frame_attention(
    x: Tensor,
    offset: Tensor | None = None,
    kernel_size: int = 3,
    dilation: int = 1,
    groups: int = 1,
    *,
    residual: bool = False,
) -> Tensor:
    """Same arguments, result and errors as `cuda_sifa.inter_frame_attention`."""
    check_arguments(x, offset, kernel_size, dilation, groups)
    dtype = torch.float32 if x.dtype in HALF else x.dtype  # geometry and accumulation are never in half precision
    if x.shape[1] <= 1 or x.numel() == 0:
        # There is no pair of frames. The result still depends on the inputs, so their gradients are zeros, not None.
        nothing = torch.where(torch.zeros_like(x, dtype=torch.bool), x, 0)  # not x * 0: x may be infinite
        if residual:
            nothing = x + nothing
        return nothing if offset is None else nothing + offset.sum().to(x.dtype) * 0
    query, value = x[:, :-1].to(dtype), x[:, 1:].to(dtype)  # both (N, T-1, C, H, W)
    if offset is not None:
        offset = offset.to(dtype)
    weights = _correlation(query, value, offset, kernel_size, dilation, groups)  # (N, T-1, groups, k*k, H, W)
    attended = _aggregation(value, weights, offset, kernel_size, dilation)
    attended = torch.cat([attended, torch.zeros_like(attended[:, :1])], dim=1)
    return (x.to(dtype) + attended if residual else attended).to(x.dtype)


def motion_saliency(x: Tensor) -> Tensor:
    """Same argument, result and errors as `cuda_sifa.motion_saliency`."""
    check_clip(x)
    wide = x.float() if x.dtype in HALF else x
    frame, following = wide[:, :-1], wide[:, 1:]
    return (torch.sigmoid(following - frame) * following + following).to(x.dtype)


def correlation(x: Tensor, offset: Tensor | None, kernel_size: int = 3, dilation: int = 1) -> Tensor:
    """The attention weights, with the index of the release: at t, the keys of frame t and the query of frame t-1.

    Args:
        x: (N, C, T, H, W). Frame 0 is its own query.
        offset: (N, 2*k*k, T, H, W) in pixels, or None for zero displacement.

    Returns:
        (N, k*k, T, H, W).
    """
    frames = x.transpose(1, 2)
    query = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    field = None if offset is None else offset.transpose(1, 2)
    return _correlation(query, frames, field, kernel_size, dilation, groups=1)[:, :, 0].transpose(1, 2)


def aggregation(x: Tensor, weights: Tensor, offset: Tensor | None, kernel_size: int = 3, dilation: int = 1) -> Tensor:
    """The weighted sum of the sampled values of frame t, with the index of the release.

    Args:
        x: (N, C, T, H, W).
        weights: (N, k*k, T, H, W), as `correlation` returns them.
        offset: (N, 2*k*k, T, H, W) in pixels, or None for zero displacement.

    Returns:
        (N, C, T, H, W).
    """
    field = None if offset is None else offset.transpose(1, 2)
    heads = weights.transpose(1, 2).unsqueeze(2)  # one head
    return _aggregation(x.transpose(1, 2), heads, field, kernel_size, dilation).transpose(1, 2)


def _correlation(
    query: Tensor, value: Tensor, offset: Tensor | None, kernel_size: int, dilation: int, groups: int
) -> Tensor:
    heads = (groups, query.shape[2] // groups)
    weights = []
    for tap in range(kernel_size**2):
        key, inside = _sample(value, offset, tap, kernel_size, dilation)
        dot = (query * key).unflatten(2, heads).sum(3)  # (N, T, groups, H, W)
        weights.append(torch.where(inside.unsqueeze(2), dot * (groups / query.shape[2]), 0))
    return torch.stack(weights, dim=3)


def _aggregation(value: Tensor, weights: Tensor, offset: Tensor | None, kernel_size: int, dilation: int) -> Tensor:
    groups = weights.shape[2]
    attended = torch.zeros_like(value)
    for tap in range(kernel_size**2):
        sampled = _sample(value, offset, tap, kernel_size, dilation)[0].unflatten(2, (groups, -1))
        attended = attended + (weights[:, :, :, tap].unsqueeze(3) * sampled).flatten(2, 3)
    return attended


def _sample(value: Tensor, offset: Tensor | None, tap: int, kernel_size: int, dilation: int) -> tuple[Tensor, Tensor]:
    """Samples `value` (N, T, C, H, W) bilinearly at every position, displaced by the tap and its offsets.

    A pixel without weight contributes nothing, even if it is infinite.

    Returns:
        The samples, and whether each point, (N, T, H, W), is less than a pixel outside the map.
    """
    height, width = value.shape[-2:]
    reach = kernel_size // 2
    y = torch.arange(height, device=value.device, dtype=value.dtype)[:, None] + (tap // kernel_size - reach) * dilation
    x = torch.arange(width, device=value.device, dtype=value.dtype)[None, :] + (tap % kernel_size - reach) * dilation
    y, x = torch.broadcast_tensors(y, x)
    if offset is not None:
        y, x = y + offset[:, :, 2 * tap], x + offset[:, :, 2 * tap + 1]  # (N, T, H, W)
    else:
        y, x = y.expand(*value.shape[:2], -1, -1), x.expand(*value.shape[:2], -1, -1)

    # A point one pixel or more outside the map samples nothing. Neither does NaN, because every comparison is false.
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = torch.where(inside, y, -1), torch.where(inside, x, -1)
    top, left = y.floor().detach(), x.floor().detach()
    fy, fx = y - top, x - left  # at an integer: 0, with the slope of the cell to the lower right
    pixels = value.flatten(3)  # (N, T, C, H*W)
    sampled = torch.zeros_like(value)
    for row, wy in ((top, 1 - fy), (top + 1, fy)):
        for col, wx in ((left, 1 - fx), (left + 1, fx)):
            valid = inside & (row >= 0) & (row < height) & (col >= 0) & (col < width)
            index = torch.where(valid, row * width + col, 0).long().flatten(2)  # (N, T, H*W)
            corner = pixels.gather(3, index.unsqueeze(2).expand_as(pixels)).view_as(value)
            weight = torch.where(valid, wy * wx, 0).unsqueeze(2)
            counts = weight != 0
            if offset is not None:  # the slope of its weight counts too
                counts = counts | (valid.unsqueeze(2) & corner.isfinite())
            sampled = sampled + weight * torch.where(counts, corner, 0)
    return sampled, inside
