"""The op in PyTorch, written for speed: the compiled op is compared with these.

Both take x (N, T, C, H, W) and offset (N, T-1, 2*k*k, H, W) or None, with k = 3, and agree with cuda_sifa.reference.
"""

import torch
from torch import Tensor

from cuda_sifa import decomposition

K = 3


def by_grid_sample(x: Tensor, offset: Tensor | None) -> Tensor:
    """All taps of all positions in one call of grid_sample, which needs channels first."""
    return decomposition.inter_frame_attention(x, offset, K)


def by_gather(x: Tensor, offset: Tensor | None) -> Tensor:
    """Gathers whole pixels, with channels innermost; torch.compile fuses the operations around the gathers."""
    n, t, c, h, w = x.shape
    query = x[:, :-1].permute(0, 1, 3, 4, 2).reshape(n * (t - 1), h * w, 1, c)
    pixels = x[:, 1:].permute(0, 1, 3, 4, 2).reshape(n * (t - 1) * h * w, c)
    y, px = _positions(x, offset)
    y, px = y.permute(0, 2, 3, 1).flatten(1, 2), px.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H*W, k*k)
    start = torch.arange(n * (t - 1), device=x.device).view(-1, 1, 1) * (h * w)
    top, left = y.floor().detach(), px.floor().detach()
    sampled = torch.zeros((), dtype=torch.float32, device=x.device)
    for row, wy in ((top, 1 - (y - top)), (top + 1, y - top)):
        for col, wx in ((left, 1 - (px - left)), (left + 1, px - left)):
            inside = (row >= 0) & (row < h) & (col >= 0) & (col < w)
            index = torch.where(inside, row * w + col, 0).long() + start
            sampled = sampled + (torch.where(inside, wy * wx, 0)).unsqueeze(-1) * pixels[index]  # (B, H*W, k*k, C)
    weights = (query * sampled).sum(-1, keepdim=True) / c
    attended = (weights * sampled).sum(2).to(x.dtype)  # (B, H*W, C)
    return _last_frame_zero(attended.view(n, t - 1, h, w, c).permute(0, 1, 4, 2, 3))


def _positions(x: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Vertical and horizontal position at which each tap samples, (N * (T-1), k*k, H, W) in float32."""
    n, t, _, h, w = x.shape
    tap = torch.arange(K * K, device=x.device).view(-1, 1, 1)
    y = torch.arange(h, device=x.device).view(1, h, 1) + tap // K - K // 2
    px = torch.arange(w, device=x.device).view(1, 1, w) + tap % K - K // 2
    y, px = (p.expand(n * (t - 1), K * K, h, w).float() for p in (y, px))
    if offset is None:
        return y, px
    field = offset.flatten(0, 1).unflatten(1, (K * K, 2)).float()
    return y + field[:, :, 0], px + field[:, :, 1]


def _last_frame_zero(attended: Tensor) -> Tensor:
    return torch.cat([attended, torch.zeros_like(attended[:, :1])], dim=1)
