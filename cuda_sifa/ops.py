"""The public function, its fake kernels for tracing, and its gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from cuda_sifa import library, reference
from cuda_sifa.calls import (
    call_for_gradient,
    channels_innermost,
    fold_batches,
    inside_torch_func,
    needs_no_gradient,
    run_kernel,
    with_signature,
)
from cuda_sifa.checks import check_arguments, check_gradient, wrong_type


def inter_frame_attention(
    x: Tensor,
    offset: Tensor | None = None,
    kernel_size: int = 3,
    dilation: int = 1,
    groups: int = 1,
    *,
    residual: bool = False,
) -> Tensor:
    """Every position of a frame attends to a deformable k x k neighbourhood in the next frame (SIFA paper, section 3).

    With s_j the value of frame t+1, sampled bilinearly at p + tap_j + offset_j and zero outside the map:

        attended[:, t] at p = sum over j of (<x[:, t] at p, s_j> * groups / C) * s_j       for each group of channels

    and zero for the last frame, which has no next frame. There is no softmax.

    Args:
        x: (N, T, C, H, W), float64, float32, float16 or bfloat16, any strides. Fastest if channels are innermost, as in
            (N*T, C, H, W) maps in channels_last: then nothing is copied.
        offset: (N, T-1, 2*k*k, H, W), one field for each pair of frames: offset[:, t] displaces the sampling of frame
            t+1 for the queries of frame t. Channels 2j and 2j+1 are the vertical and the horizontal displacement in
            pixels of tap j, taps in row-major order. The dtype of x; float32 too if x is float16 or bfloat16. None: the
            regular neighbourhood, a faster path without interpolation. A point one pixel or more outside the map, or
            at NaN, contributes nothing.
        kernel_size: k, odd.
        dilation: distance between taps in pixels.
        groups: number of heads. Each has C / groups channels and its own weights; all share the offsets.
        residual: return x + attended, as in the paper's block. It costs no pass over memory more, also in the gradient.

    Returns:
        (N, T, C, H, W) in the dtype of x, channels innermost in memory. Geometry and sums are computed in float32 or
        float64. Differentiable once in x and offset. At an integer position the derivative is that of the cell to the
        lower right, as in the release.

    Raises:
        ValueError: an argument is not as above. The message names it, what is expected and what was given.
        TypeError: an argument is not a tensor, or not an integer.
    """
    try:
        if x.device.type not in library.devices:
            return reference.inter_frame_attention(x, offset, kernel_size, dilation, groups, residual=residual)
        if inside_torch_func():
            return InterFrameAttention.apply(x, offset, kernel_size, dilation, groups, residual)
        if needs_no_gradient(x, offset):
            return run_kernel(torch.ops.sifa.inter_frame_attention, x, offset, kernel_size, dilation, groups, residual)
        return torch.ops.sifa.inter_frame_attention(x, offset, kernel_size, dilation, groups, residual)
    except (AttributeError, RuntimeError, TypeError):
        # The types are checked after the failure only, so a correct call has no cost.
        if mistake := wrong_type(x, offset, kernel_size, dilation, groups):
            raise TypeError(mistake) from None
        raise


def _fake(
    x: Tensor, offset: Tensor | None, kernel_size: int, dilation: int, groups: int, residual: bool = False
) -> Tensor:
    check_arguments(x, offset, kernel_size, dilation, groups)
    return channels_innermost(x)


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor | None,
    kernel_size: int,
    dilation: int,
    groups: int,
    deterministic: bool = False,
    residual: bool = False,
) -> tuple[Tensor, Tensor]:
    check_arguments(x, offset, kernel_size, dilation, groups)
    check_gradient(grad, x, x.shape, "x")
    if offset is not None:
        return channels_innermost(x), channels_innermost(offset)
    accumulation = torch.float64 if x.dtype == torch.float64 else torch.float32
    return channels_innermost(x), x.new_empty(0, dtype=accumulation)


NO_FORWARD_MODE = (
    "inter_frame_attention does not implement forward mode AD (jvp, jacfwd): use jacrev or vjp, or "
    "cuda_sifa.reference.inter_frame_attention, the same function in plain PyTorch"
)


class InterFrameAttention(torch.autograd.Function):
    """The op and its gradient. Saves x and offset only, nothing of size k*k*C: the backward pass samples again."""

    @staticmethod
    @with_signature
    def forward(x: Tensor, offset: Tensor | None, *settings: int) -> Tensor:
        return run_kernel(torch.ops.sifa.inter_frame_attention, x, offset, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, offset, *ctx.settings = inputs  # residual is missing if a caller of the bare op left it out
        ctx.save_for_backward(x, offset)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, offset = ctx.saved_tensors
        op = torch.ops.sifa.inter_frame_attention_backward
        backward = call_for_gradient(op, InterFrameAttentionBackward, grad, x, offset)
        neighbourhood, residual = ctx.settings[:3], any(ctx.settings[3:])
        grad_x, grad_offset = backward(grad, x, offset, *neighbourhood, False, residual)
        return grad_x, grad_offset if offset is not None else None, *(None for _ in ctx.settings)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise NotImplementedError(NO_FORWARD_MODE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, x: Tensor, offset: Tensor | None, *settings: int) -> tuple[Tensor, int]:
        x, offset = fold_batches(info.batch_size, in_dims, x, offset)
        return InterFrameAttention.apply(x, offset, *settings).unflatten(0, (info.batch_size, -1)), 0


class InterFrameAttentionBackward(torch.autograd.Function):
    """The gradient of the op, which is not differentiable.

    The kernel does not see torch.use_deterministic_algorithms; here its state becomes an argument, for every caller. A
    compiled graph keeps the argument, and PyTorch compiles again if the state changes.
    """

    @staticmethod
    @with_signature
    def forward(
        grad: Tensor,
        x: Tensor,
        offset: Tensor | None,
        kernel_size: int,
        dilation: int,
        groups: int,
        deterministic: bool = False,
        residual: bool = False,
    ) -> tuple[Tensor, Tensor]:
        deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
        settings = (kernel_size, dilation, groups, deterministic, residual)
        return run_kernel(torch.ops.sifa.inter_frame_attention_backward, grad, x, offset, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        pass

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(NO_FORWARD_MODE)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, grad: Tensor, x: Tensor, offset: Tensor | None, *settings: int
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int | None]]:
        grad, x, offset = fold_batches(info.batch_size, in_dims, grad, x, offset)
        grad_x, grad_offset = InterFrameAttentionBackward.apply(grad, x, offset, *settings)
        grad_x = grad_x.unflatten(0, (info.batch_size, -1))
        if offset is None:
            return (grad_x, grad_offset), (0, None)
        return (grad_x, grad_offset.unflatten(0, (info.batch_size, -1))), (0, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        raise RuntimeError(
            "inter_frame_attention is differentiable once: its gradient is not differentiable. For a second "
            "derivative use cuda_sifa.reference.inter_frame_attention, the same function in plain PyTorch"
        )


def _flops(x_shape: list[int], offset_shape: list[int] | None, kernel_size: int, *args: Any, **kwargs: Any) -> int:
    """Two multiply-adds for each element and tap, one for the correlation and one for the aggregation.

    This is how the literature counts attention. As for deformable convolutions, interpolation is not counted.
    """
    n, t, c, h, w = x_shape
    return 2 * 2 * n * max(t - 1, 0) * c * h * w * kernel_size**2


def _flops_backward(
    grad_shape: list[int], x_shape: list[int], offset_shape: list[int] | None, kernel_size: int, *args: Any, **kw: Any
) -> int:
    return 2 * _flops(x_shape, offset_shape, kernel_size)


if library.devices:
    torch.library.register_fake("sifa::inter_frame_attention", _fake)
    torch.library.register_fake("sifa::inter_frame_attention_backward", _fake_backward)
    # Registered for the op itself, so that every caller of torch.ops.sifa.* gets the gradient, traced or not.
    torch.library.impl("sifa::inter_frame_attention", "Autograd", InterFrameAttention.apply)
    torch.library.impl("sifa::inter_frame_attention_backward", "Autograd", InterFrameAttentionBackward.apply)
    register_flop_formula(torch.ops.sifa.inter_frame_attention)(_flops)
    register_flop_formula(torch.ops.sifa.inter_frame_attention_backward)(_flops_backward)
