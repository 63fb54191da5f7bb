"""The motion saliency, from which SIFA predicts its offsets, with its fake kernels for tracing and its gradient."""

from typing import Any

import torch
from torch import Tensor

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
from cuda_sifa.checks import check_clip, check_gradient, not_a_clip, shape_of_pairs


def motion_saliency(x: Tensor) -> Tensor:
    """Features of each next frame, amplified where they differ from those of the frame (SIFA paper, section 3.1).

        saliency[:, t] = sigmoid(x[:, t+1] - x[:, t]) * x[:, t+1] + x[:, t+1]

    The paper's map is the first term; like the release we add x[:, t+1] itself. One pass over memory.

    Args:
        x: (N, T, C, H, W), float64, float32, float16 or bfloat16, any strides. Fastest if channels are innermost, as in
            (N*T, C, H, W) maps in channels_last: then nothing is copied.

    Returns:
        (N, T-1, C, H, W), for frames 1..T-1, in the dtype of x, channels innermost in memory. Half types are computed
        in float32 and rounded once. Differentiable once.

    Raises:
        ValueError: x is not as above. The message says what is expected and what was given.
        TypeError: x is not a tensor.
    """
    try:
        if x.device.type not in library.devices:
            return reference.motion_saliency(x)
        if inside_torch_func():
            return MotionSaliency.apply(x)
        if needs_no_gradient(x):
            return run_kernel(torch.ops.sifa.motion_saliency, x)
        return torch.ops.sifa.motion_saliency(x)
    except AttributeError:
        if not isinstance(x, Tensor):
            raise TypeError(not_a_clip(x)) from None
        raise


def _fake(x: Tensor) -> Tensor:
    check_clip(x)
    return channels_innermost(x, shape_of_pairs(x, x.shape[2]))


def _fake_backward(grad: Tensor, x: Tensor) -> Tensor:
    check_clip(x)
    check_gradient(grad, x, shape_of_pairs(x, x.shape[2]), "the saliency")
    return channels_innermost(x)


NO_FORWARD_MODE = (
    "motion_saliency does not implement forward mode AD (jvp, jacfwd): use jacrev or vjp, or "
    "cuda_sifa.reference.motion_saliency, the same function in plain PyTorch"
)


class MotionSaliency(torch.autograd.Function):
    """The op and its gradient. Saves x only."""

    @staticmethod
    @with_signature
    def forward(x: Tensor) -> Tensor:
        return run_kernel(torch.ops.sifa.motion_saliency, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        backward = call_for_gradient(torch.ops.sifa.motion_saliency_backward, MotionSaliencyBackward, grad, x)
        return backward(grad, x)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise NotImplementedError(NO_FORWARD_MODE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, x: Tensor) -> tuple[Tensor, int]:
        (x,) = fold_batches(info.batch_size, in_dims, x)
        return MotionSaliency.apply(x).unflatten(0, (info.batch_size, -1)), 0


class MotionSaliencyBackward(torch.autograd.Function):
    """The gradient of the op, which is not differentiable."""

    @staticmethod
    @with_signature
    def forward(grad: Tensor, x: Tensor) -> Tensor:
        return run_kernel(torch.ops.sifa.motion_saliency_backward, grad, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        raise NotImplementedError(NO_FORWARD_MODE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, grad: Tensor, x: Tensor) -> tuple[Tensor, int]:
        grad, x = fold_batches(info.batch_size, in_dims, grad, x)
        return MotionSaliencyBackward.apply(grad, x).unflatten(0, (info.batch_size, -1)), 0

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        raise RuntimeError(
            "motion_saliency is differentiable once: its gradient is not differentiable. For a second derivative use "
            "cuda_sifa.reference.motion_saliency, the same function in plain PyTorch"
        )


if library.devices:
    torch.library.register_fake("sifa::motion_saliency", _fake)
    torch.library.register_fake("sifa::motion_saliency_backward", _fake_backward)
    # Registered for the op itself, so that every caller of torch.ops.sifa.* gets the gradient, traced or not.
    torch.library.impl("sifa::motion_saliency", "Autograd", MotionSaliency.apply)
    torch.library.impl("sifa::motion_saliency_backward", "Autograd", MotionSaliencyBackward.apply)
