"""The ops in standard ONNX operators, so that `torch.onnx.export` writes networks that contain them.

    torch.onnx.export(network, (clips,), "network.onnx", custom_translation_table=cuda_sifa.onnx.TRANSLATIONS)

Needs onnxscript, which torch.onnx.export needs too; `import cuda_sifa` does not import this module. The operators are
those of opset 20 (GridSample); any ONNX runtime has them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cuda_sifa import library

try:
    import onnx_ir as ir
    from onnxscript import opset20
except ImportError as error:
    raise ImportError(f"{error.name} is missing, which ONNX export needs: pip install onnx onnxscript") from None

__all__ = ["TRANSLATIONS", "inter_frame_attention", "motion_saliency"]

op: Any = opset20
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_AXES = {"batch": 0, "time": 1, "channels": 2, "height": 3, "width": 4}


# The exporter takes the parameters' kinds from annotations: tensors are those without one.
def inter_frame_attention(
    x, offset=None, kernel_size: int = 3, dilation: int = 1, groups: int = 1, residual: bool = False
):
    """The translation of `cuda_sifa.inter_frame_attention`, which documents the arguments. The exporter calls it.

    N, H and W may be dynamic; T may be dynamic above 1. Half types are computed in float32, as in the op.

    Args:
        x: value of a graph, (N, T, C, H, W).
        offset: value of a graph, (N, T-1, 2*k*k, H, W), or None.
        kernel_size: k, odd.
        dilation: distance between taps in pixels.
        groups: number of heads.
        residual: add x.

    Returns:
        Value of a graph, (N, T, C, H, W).

    Raises:
        ValueError: C is dynamic.
    """
    channels = x.shape[2]
    if not isinstance(channels, int):
        raise ValueError(f"the channels of x must be fixed for ONNX, got {channels}")
    if x.shape[1] == 1:
        return op.Identity(x) if residual else op.Expand(op.CastLike(op.Constant(value_float=0.0), x), op.Shape(x))
    dtype = ir.DataType.FLOAT if x.dtype in _HALF else x.dtype
    wide = op.Cast(x, to=dtype)
    height, width = _size(x, "height"), _size(x, "width")
    maps = op.Concat(_numbers(-1, channels), height, width, axis=0)
    query, value = (op.Reshape(frames, maps) for frames in _frames(wide))  # (B, C, H, W), B = N * (T-1)

    taps = kernel_size**2
    batch = op.Shape(query, start=0, end=1)
    field = (
        None
        if offset is None
        else op.Reshape(op.Cast(offset, to=dtype), op.Concat(_numbers(-1, taps, 2), height, width, axis=0))
    )
    grid = _grid(field, dtype, op.Concat(batch, _numbers(taps), height, width, axis=0), kernel_size, dilation)
    sampled = op.GridSample(value, grid, mode="linear", padding_mode="zeros", align_corners=0)  # (B, C, taps*H, W)
    heads = op.Concat(batch, _numbers(groups, channels // groups, taps), height, width, axis=0)
    sampled = op.Reshape(sampled, heads)
    query = op.Reshape(query, op.Concat(batch, _numbers(groups, channels // groups, 1), height, width, axis=0))
    scale = op.CastLike(op.Constant(value=ir.tensor(np.float64(groups / channels))), query)
    weights = op.Mul(op.ReduceSum(op.Mul(query, sampled), _numbers(2), keepdims=1), scale)
    attended = op.ReduceSum(op.Mul(weights, sampled), _numbers(3), keepdims=0)  # (B, groups, C / groups, H, W)
    clip = op.Concat(_size(x, "batch"), _numbers(-1, channels), height, width, axis=0)
    padded = op.Pad(
        op.Reshape(attended, clip), _numbers(0, 0, 0, 0, 0, 0, 1, 0, 0, 0)
    )  # the last frame has no next one
    return op.CastLike(op.Add(wide, padded) if residual else padded, x)


def motion_saliency(x):
    """The translation of `cuda_sifa.motion_saliency`. The exporter calls it. All sizes may be dynamic.

    Args:
        x: value of a graph, (N, T, C, H, W).

    Returns:
        Value of a graph, (N, T-1, C, H, W).
    """
    wide = op.Cast(x, to=ir.DataType.FLOAT if x.dtype in _HALF else x.dtype)
    frame, following = _frames(wide)
    saliency = op.Add(op.Mul(op.Sigmoid(op.Sub(following, frame)), following), following)
    return op.CastLike(saliency, x)


def _frames(clip: Any) -> tuple[Any, Any]:
    """The first and the second frame of every pair of consecutive frames: both (N, T-1, C, H, W)."""
    first = op.Slice(clip, _numbers(0), _numbers(-1), _numbers(1))
    return first, op.Slice(clip, _numbers(1), _numbers(2**31 - 1), _numbers(1))


def _grid(field: Any, dtype: ir.DataType, shape: Any, kernel_size: int, dilation: int) -> Any:
    """Where the taps sample, as GridSample takes it: (B, taps * H, W, 2).

    Args:
        field: offsets (B, taps, 2, H, W), or None.
        dtype: of the result.
        shape: (B, taps, H, W).
        kernel_size, dilation: as of the op.
    """
    tap = np.arange(kernel_size**2)
    coordinates = []
    for axis, index in ((1, tap % kernel_size), (0, tap // kernel_size)):  # GridSample takes x before y
        size = op.Slice(shape, _numbers(2 + axis), _numbers(3 + axis))
        pixel = op.Range(op.Constant(value_int=0), op.Squeeze(size), op.Constant(value_int=1))
        pixel = op.Unsqueeze(pixel, _numbers(0, 1, 3) if axis == 0 else _numbers(0, 1, 2))
        displacement = ((index - kernel_size // 2) * dilation).reshape(1, -1, 1, 1)
        position = op.Cast(op.Add(pixel, op.Constant(value=ir.tensor(displacement))), to=dtype)
        if field is None:
            position = op.Expand(position, shape)
        else:
            position = op.Add(position, op.Gather(field, op.Constant(value_int=axis), axis=2))  # (B, taps, H, W)
        # With zeros padding and without aligned corners, GridSample treats the border as the op does.
        one, two = (op.CastLike(op.Constant(value_float=number), position) for number in (1.0, 2.0))
        scaled = op.Sub(op.Div(op.Add(op.Mul(two, position), one), op.Cast(size, to=dtype)), one)
        coordinates.append(op.Unsqueeze(scaled, _numbers(-1)))
    width = op.Slice(shape, _numbers(3), _numbers(4))
    batch = op.Slice(shape, _numbers(0), _numbers(1))
    return op.Reshape(op.Concat(*coordinates, axis=-1), op.Concat(batch, _numbers(-1), width, _numbers(2), axis=0))


def _size(x: Any, axis: str) -> Any:
    """The size of an axis as a vector of one number."""
    return op.Shape(x, start=_AXES[axis], end=_AXES[axis] + 1)


def _numbers(*values: int) -> Any:
    return op.Constant(value_ints=values)


#: For `torch.onnx.export(custom_translation_table=...)`. Empty if nothing is built: then all is plain PyTorch anyway.
TRANSLATIONS: dict[Callable, Callable] = {}
if library.devices:
    TRANSLATIONS[torch.ops.sifa.inter_frame_attention.default] = inter_frame_attention
    TRANSLATIONS[torch.ops.sifa.motion_saliency.default] = motion_saliency
