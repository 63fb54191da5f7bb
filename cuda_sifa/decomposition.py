"""The op as few standard operators of PyTorch, for exporters and runtimes that do not have it.

`reference.py` is the definition, one tap after the other; here one grid_sample samples all taps. Use it for inference
only: at integer offsets, rounding may select the derivative of the neighbouring cell.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cuda_sifa.checks import HALF, check_arguments


def inter_frame_attention(
    x: Tensor,
    offset: Tensor | None = None,
    kernel_size: int = 3,
    dilation: int = 1,
    groups: int = 1,
    *,
    residual: bool = False,
) -> Tensor:
    """Same arguments, result and errors as `cuda_sifa.inter_frame_attention`.

    It needs memory for k*k*C values at each position.
    """
    check_arguments(x, offset, kernel_size, dilation, groups)
    if x.shape[1] == 1:
        return x.clone() if residual else torch.zeros_like(x)
    n, t, c, h, w = x.shape
    taps = kernel_size**2
    dtype = torch.float32 if x.dtype in HALF else x.dtype
    query, value = x[:, :-1].flatten(0, 1).to(dtype), x[:, 1:].flatten(0, 1).to(dtype)  # (B, C, H, W), B = N * (T-1)

    tap = torch.arange(taps, device=x.device, dtype=torch.int64).view(1, -1, 1, 1)
    y = torch.arange(h, device=x.device).view(1, 1, h, 1) + (tap // kernel_size - kernel_size // 2) * dilation
    px = torch.arange(w, device=x.device).view(1, 1, 1, w) + (tap % kernel_size - kernel_size // 2) * dilation
    y, px = y.to(dtype), px.to(dtype)  # (1, taps, H, 1) and (1, taps, 1, W)
    if offset is not None:
        field = offset.flatten(0, 1).unflatten(1, (taps, 2)).to(dtype)  # (B, taps, 2, H, W)
        y, px = y + field[:, :, 0], px + field[:, :, 1]
    batch = query.shape[0]
    y, px = y.expand(batch, taps, h, w), px.expand(batch, taps, h, w)
    # With zeros padding and without aligned corners, grid_sample treats the border as the op does.
    grid = torch.stack([(2 * px + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1).flatten(1, 2)  # (B, taps*H, W, 2)
    sampled = F.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    sampled = sampled.view(-1, groups, c // groups, taps, h, w)
    query = query.view(-1, groups, c // groups, 1, h, w)
    weights = (query * sampled).sum(2, keepdim=True) * (groups / c)
    attended = (weights * sampled).sum(3).view(n, t - 1, c, h, w)
    attended = torch.cat([attended, torch.zeros_like(attended[:, :1])], dim=1)
    return (x.to(dtype) + attended if residual else attended).to(x.dtype)
