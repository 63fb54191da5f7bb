"""What the op is measured on: the shapes of the networks, their inputs, and the passes that are timed."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.baselines import K

SHAPES = {  # (N, T, C, H): maps are square
    "SIFA-Net res3": (2, 4, 128, 28),
    "SIFA-Net res4": (2, 4, 256, 14),
    "SIFA-Net res5": (2, 4, 512, 7),
    "SIFA-Transformer 1": (1, 16, 128, 56),
    "SIFA-Transformer 3": (1, 16, 512, 14),
    "SIFA-Transformer 4": (1, 16, 1024, 7),
}
CUDA_SHAPES = {
    "SIFA-Net res3": (24, 4, 128, 28),
    "SIFA-Net res4": (24, 4, 256, 14),
    "SIFA-Net res5": (24, 4, 512, 7),
    "SIFA-Transformer 1": (8, 16, 128, 56),
    "SIFA-Transformer 2": (8, 16, 256, 28),
    "SIFA-Transformer 3": (8, 16, 512, 14),
    "SIFA-Transformer 4": (8, 16, 1024, 7),
}
Shape = tuple[int, int, int, int]
Contestant = Callable[[], object]
Attention = Callable[[Tensor, Tensor | None], Tensor]


def inputs(shape: Shape, offsets: str, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor | None]:
    """x and offset with channels innermost, as the networks pass them.

    Args:
        offsets: "sub-pixel" (normally distributed, about one pixel), "zero", or "none".
    """
    n, t, c, h = shape
    x = torch.randn(n, t, h, h, c, device=device).to(dtype).permute(0, 1, 4, 2, 3)
    if offsets == "none":
        return x, None
    field = torch.randn(n, t - 1, h, h, 2 * K * K, device=device) if offsets == "sub-pixel" else torch.zeros(())
    return x, field.expand(n, t - 1, h, h, 2 * K * K).to(device, dtype).contiguous().permute(0, 1, 4, 2, 3)


def forward_pass(function: Attention, x: Tensor, offset: Tensor | None) -> Contestant:
    def run() -> object:
        with torch.no_grad():
            return function(x, offset)

    return run


def backward_pass(function: Attention, x: Tensor, offset: Tensor | None) -> Contestant:
    """The gradients alone; the forward pass runs before."""
    needed, attend, grad = _with_gradients(function, x, offset)
    attended = attend()
    return lambda: torch.autograd.grad(attended, needed, grad, retain_graph=True)


def both_passes(function: Attention, x: Tensor, offset: Tensor | None) -> Contestant:
    needed, attend, grad = _with_gradients(function, x, offset)
    return lambda: torch.autograd.grad(attend(), needed, grad)


def _with_gradients(
    function: Attention, x: Tensor, offset: Tensor | None
) -> tuple[list[Tensor], Callable[[], Tensor], Tensor]:
    """The inputs as leaves, a call of the function on them, and a gradient of its result."""
    x = x.detach().requires_grad_()
    field = None if offset is None else offset.detach().requires_grad_()
    needed = [x] if field is None else [x, field]
    return needed, lambda: function(x, field), torch.randn_like(x)
