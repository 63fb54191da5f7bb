"""The compiled op, the reference and the fake kernels reject every wrong argument with the same sentence."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from cuda_sifa import inter_frame_attention, library, reference

X = (2, 3, 4, 5, 6)
OFFSET = (2, 2, 18, 5, 6)


def call(**changes: Any) -> dict[str, Any]:
    return {"x": torch.zeros(X), "offset": torch.zeros(OFFSET), "kernel_size": 3, "dilation": 1, "groups": 1, **changes}


WRONG = {
    "four dimensions": (call(x=torch.zeros(2, 3, 4, 5)), "x must be (N, T, C, H, W), got 4 dimensions: (2, 3, 4, 5)"),
    "a scalar": (call(x=torch.tensor(1.0)), "x must be (N, T, C, H, W), got 0 dimensions: ()"),
    "integers": (
        call(x=torch.zeros(X, dtype=torch.int64)),
        "x must be float64, float32, float16 or bfloat16, got torch.int64",
    ),
    "complex numbers": (
        call(x=torch.zeros(X, dtype=torch.complex64)),
        "x must be float64, float32, float16 or bfloat16, got torch.complex64",
    ),
    "even kernel": (call(kernel_size=4), "kernel_size must be odd and between 1 and 255, got 4"),
    "negative kernel": (call(kernel_size=-3), "kernel_size must be odd and between 1 and 255, got -3"),
    "huge kernel": (call(kernel_size=2**40 + 1), f"kernel_size must be odd and between 1 and 255, got {2**40 + 1}"),
    "no dilation": (call(dilation=0), "dilation must be between 1 and 65535, got 0"),
    "huge dilation": (call(dilation=2**60), f"dilation must be between 1 and 65535, got {2**60}"),
    "groups that do not divide": (
        call(groups=3),
        "groups must be positive and divide the channels of x, got groups=3 for C=4",
    ),
    "no groups": (call(groups=0), "groups must be positive and divide the channels of x, got groups=0 for C=4"),
    "more groups than channels": (
        call(groups=8),
        "groups must be positive and divide the channels of x, got groups=8 for C=4",
    ),
    "offsets of another neighbourhood": (
        call(kernel_size=5),
        "offset must be (N, T-1, 50, H, W) = (2, 2, 50, 5, 6) for kernel_size=5, got (2, 2, 18, 5, 6)",
    ),
    "offsets for all frames": (
        call(offset=torch.zeros(2, 3, 18, 5, 6)),
        "offset must be (N, T-1, 18, H, W) = (2, 2, 18, 5, 6) for kernel_size=3, got (2, 3, 18, 5, 6)",
    ),
    "offsets of one dimension": (
        call(offset=torch.zeros(18)),
        "offset must be (N, T-1, 18, H, W) = (2, 2, 18, 5, 6) for kernel_size=3, got (18,)",
    ),
    "offsets on another device": (
        call(offset=torch.zeros(OFFSET, device="meta")),
        "offset must be on the device of x, cpu, got meta",
    ),
    "offsets in another dtype": (
        call(offset=torch.zeros(OFFSET, dtype=torch.float64)),
        "offset must have the dtype of x, torch.float32, got torch.float64",
    ),
    "offsets in the other half type": (
        call(x=torch.zeros(X, dtype=torch.float16), offset=torch.zeros(OFFSET, dtype=torch.bfloat16)),
        "offset must have the dtype of x, torch.float16 (or torch.float32), got torch.bfloat16",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("function", [inter_frame_attention, reference.inter_frame_attention], ids=["op", "reference"])
def test_wrong_arguments(name: str, function: Any) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        function(**arguments)


@pytest.mark.parametrize("name", [name for name in WRONG if name != "offsets on another device"])
def test_tracing_rejects_the_same(name: str) -> None:
    arguments, message = WRONG[name]
    meta: Any = {key: v.to("meta") if isinstance(v, torch.Tensor) else v for key, v in arguments.items()}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        inter_frame_attention(**meta)


@pytest.mark.parametrize(
    ("grad", "message"),
    [
        (torch.zeros(2, 3, 4, 5, 7), "grad must have the shape of x, (2, 3, 4, 5, 6), got (2, 3, 4, 5, 7)"),
        (torch.zeros(X, dtype=torch.float64), "grad must have the dtype of x, torch.float32, got torch.float64"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_wrong_gradients(grad: torch.Tensor, message: str, device: str) -> None:
    x, offset = torch.zeros(X, device=device), torch.zeros(OFFSET, device=device)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        torch.ops.sifa.inter_frame_attention_backward(grad.to(device), x, offset, 3, 1, 1)


def test_sparse_tensors_are_rejected() -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        inter_frame_attention(torch.zeros(X).to_sparse())


@pytest.mark.skipif("cpu" not in library.devices, reason="a limit of the compiled op only")
@pytest.mark.parametrize("shape", [(1, 2, 1, 2**31, 1), (1, 2, 1, 1, 2**31)])
def test_maps_with_too_many_rows_or_columns_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"height and width of x must be at most 2^30, got {shape}")):
        inter_frame_attention(torch.zeros(1).expand(shape))


TYPES = {
    "a NumPy array": (call(x=np.zeros(X)), "x must be a tensor (N, T, C, H, W), got ndarray"),
    "a list": (call(x=[1.0]), "x must be a tensor (N, T, C, H, W), got list"),
    "a number for offsets": (call(offset=0), "offset must be a tensor (N, T-1, 2*k*k, H, W) or None, got int"),
    "an array for offsets": (
        call(offset=np.zeros(OFFSET)),
        "offset must be a tensor (N, T-1, 2*k*k, H, W) or None, got ndarray",
    ),
    "a size that is no integer": (call(kernel_size=3.0), "kernel_size must be an integer, got 3.0"),
    "a dilation that is no integer": (call(dilation="1"), "dilation must be an integer, got '1'"),
    "no number of groups": (call(groups=None), "groups must be an integer, got None"),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("function", [inter_frame_attention, reference.inter_frame_attention], ids=["op", "reference"])
def test_arguments_of_another_type(name: str, function: Any) -> None:
    arguments, message = TYPES[name]
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$") as caught:
        function(**arguments)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("function", [inter_frame_attention, reference.inter_frame_attention], ids=["op", "reference"])
def test_integers_of_numpy_are_integers(function: Any) -> None:
    x = torch.randn(X)
    assert torch.equal(function(x, None, np.int64(3), np.int32(1), np.int64(2)), function(x, None, 3, 1, 2))
