"""What the ops accept, for the reference and the fake kernels. csrc/checks.h is the same in C++."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAX_KERNEL_SIZE = 255
MAX_DILATION = 65535
HALF = (torch.float16, torch.bfloat16)


def _shape(sizes: Sequence[int]) -> str:
    return str(tuple(sizes))


def wrong_type(x: Any, offset: Any, kernel_size: Any, dilation: Any, groups: Any) -> str | None:
    """Finds an argument that must be a tensor, or an integer, and is not.

    Returns:
        The error message, or None if all types are right.
    """
    if not isinstance(x, Tensor):
        return not_a_clip(x)
    if offset is not None and not isinstance(offset, Tensor):
        return f"offset must be a tensor (N, T-1, 2*k*k, H, W) or None, got {type(offset).__name__}"
    for name, value in (("kernel_size", kernel_size), ("dilation", dilation), ("groups", groups)):
        if not hasattr(value, "__index__"):  # true for integers of NumPy and for symbolic integers too
            return f"{name} must be an integer, got {value!r}"
    return None


def check_settings(channels: int, kernel_size: int, dilation: int, groups: int) -> None:
    """Checks the arguments that are no tensors.

    Raises:
        ValueError: one of them is out of range.
    """
    if not (1 <= kernel_size <= MAX_KERNEL_SIZE and kernel_size % 2 == 1):
        raise ValueError(f"kernel_size must be odd and between 1 and {MAX_KERNEL_SIZE}, got {kernel_size}")
    if not 1 <= dilation <= MAX_DILATION:
        raise ValueError(f"dilation must be between 1 and {MAX_DILATION}, got {dilation}")
    if groups < 1 or channels % groups != 0:
        raise ValueError(f"groups must be positive and divide the channels of x, got groups={groups} for C={channels}")


def check_arguments(x: Tensor, offset: Tensor | None, kernel_size: int, dilation: int, groups: int) -> None:
    """Checks all arguments of `inter_frame_attention`.

    Raises:
        TypeError: an argument is not a tensor, or not an integer.
        ValueError: an argument has a wrong shape, dtype, device or value.
    """
    if mistake := wrong_type(x, offset, kernel_size, dilation, groups):
        raise TypeError(mistake)
    _check_shape_and_dtype(x)
    check_settings(x.shape[2], kernel_size, dilation, groups)
    if offset is None:
        return

    channels = 2 * kernel_size * kernel_size
    expected = shape_of_pairs(x, channels)
    if offset.dim() != 5 or tuple(offset.shape) != expected:
        raise ValueError(
            f"offset must be (N, T-1, {channels}, H, W) = {_shape(expected)} for kernel_size={kernel_size}, "
            f"got {_shape(offset.shape)}"
        )
    if offset.device != x.device:
        raise ValueError(f"offset must be on the device of x, {x.device}, got {offset.device}")
    if offset.dtype != x.dtype and not (x.dtype in HALF and offset.dtype == torch.float32):
        also = " (or torch.float32)" if x.dtype in HALF else ""
        raise ValueError(f"offset must have the dtype of x, {x.dtype}{also}, got {offset.dtype}")


def check_clip(x: Tensor) -> None:
    """Checks the argument of `motion_saliency`.

    Raises:
        TypeError: x is not a tensor.
        ValueError: x has a wrong shape or dtype.
    """
    if not isinstance(x, Tensor):
        raise TypeError(not_a_clip(x))
    _check_shape_and_dtype(x)


def not_a_clip(x: Any) -> str:
    """The error message for an x that is not a tensor."""
    return f"x must be a tensor (N, T, C, H, W), got {type(x).__name__}"


def _check_shape_and_dtype(x: Tensor) -> None:
    if x.dim() != 5:
        raise ValueError(f"x must be (N, T, C, H, W), got {x.dim()} dimensions: {_shape(x.shape)}")
    if x.dtype not in (torch.float64, torch.float32, *HALF):
        raise ValueError(f"x must be float64, float32, float16 or bfloat16, got {x.dtype}")


def shape_of_pairs(x: Tensor, channels: int) -> tuple[int, ...]:
    """(N, T-1, channels, H, W), the shape of what belongs to pairs of frames of x."""
    n, t, _, h, w = x.shape
    return n, t - 1 if t > 0 else 0, channels, h, w


def check_gradient(grad: Tensor, x: Tensor, expected: Sequence[int], result: str) -> None:
    """Checks the gradient of a result.

    Args:
        grad: the gradient.
        x: the clip, whose dtype and device it must have.
        expected: the shape that it must have.
        result: whose shape that is, for the message.

    Raises:
        ValueError: `grad` has another shape, dtype or device.
    """
    if tuple(grad.shape) != tuple(expected):
        raise ValueError(f"grad must have the shape of {result}, {_shape(expected)}, got {_shape(grad.shape)}")
    if grad.dtype != x.dtype:
        raise ValueError(f"grad must have the dtype of x, {x.dtype}, got {grad.dtype}")
    if grad.device != x.device:
        raise ValueError(f"grad must be on the device of x, {x.device}, got {grad.device}")
