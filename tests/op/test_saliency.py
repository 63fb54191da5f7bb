"""The motion saliency: values, layouts, gradients, and how it works with the rest of PyTorch."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from cuda_sifa import library, motion_saliency, reference
from tests.op.cases import layouts, relative_error, run_saliency, with_threads

Shape = tuple[int, ...]

# Every axis has another size. One pair of frames and many, less than a vector, several blocks with a remainder.
SHAPES = [(2, 4, 6, 5, 7), (1, 2, 1, 1, 1), (3, 2, 5, 1, 2), (1, 9, 16, 3, 4), (2, 3, 37, 4, 5)]
EMPTY = [(0, 3, 4, 5, 6), (2, 0, 4, 5, 6), (2, 1, 4, 5, 6), (1, 2, 4, 0, 6), (1, 2, 4, 5, 0), (1, 2, 0, 5, 6)]
TOLERANCE = {torch.float64: 1e-15, torch.float32: 5e-7}  # a few roundings


def clip(shape: Shape, dtype: torch.dtype = torch.float64, device: Any = "cpu", scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(device, dtype)


def gradient_for(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(x[:, 1:].shape, generator=generator, dtype=torch.float64).to(x.device, x.dtype)


def assert_equals_the_reference(x: Tensor, grad: Tensor) -> None:
    expected = run_saliency(reference.motion_saliency, x.clone(), grad.clone())
    for name, result in run_saliency(motion_saliency, x, grad).items():
        assert (result.shape, result.dtype, result.device) == (expected[name].shape, x.dtype, x.device)
        assert relative_error(result, expected[name]) < TOLERANCE[x.dtype], name


def test_by_hand() -> None:
    x = torch.tensor([1.0, 1.0, 3.0, -2.0]).view(1, 4, 1, 1, 1)
    expected = [1.5, 3 + 3 / (1 + math.exp(-2)), -2 - 2 / (1 + math.exp(5))]
    assert motion_saliency(x).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1.0, 40.0, 1e4])  # the sigmoid is 0 or 1 in the end
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES + EMPTY, ids=str)
def test_equals_the_reference(shape: Shape, dtype: torch.dtype, scale: float, device: torch.device) -> None:
    x = clip(shape, dtype, device, scale)
    assert_equals_the_reference(x, gradient_for(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_half_precision_is_rounded_once(shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
    """The error is that of the rounding of the exact result, of values computed from the same rounded clip."""
    x = clip(shape, dtype, device)
    grad = gradient_for(x)
    exact = run_saliency(reference.motion_saliency, x.double(), grad.double())
    for name, result in run_saliency(motion_saliency, x, grad).items():
        assert result.dtype == dtype
        assert relative_error(result, exact[name]) <= torch.finfo(dtype).eps / 2, name


@pytest.mark.parametrize("layout", list(layouts(torch.zeros(1, 1, 1, 1, 1))))
def test_any_strides(layout: str, device: torch.device) -> None:
    x = clip((2, 4, 6, 5, 7), device=device)
    assert_equals_the_reference(layouts(x)[layout], layouts(gradient_for(x))[layout])


def test_stride_zero(device: torch.device) -> None:
    """Expanded inputs, and the expanded gradient of sum().backward(), equal their copies."""
    x = clip((1, 3, 4, 5, 6), device=device).expand(3, -1, -1, -1, -1)
    assert_equals_the_reference(x, torch.ones((), dtype=x.dtype, device=device).expand(3, 2, 4, 5, 6))


def test_channels_are_innermost_in_the_result() -> None:
    assert motion_saliency(clip((2, 4, 6, 5, 7))).permute(0, 1, 3, 4, 2).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_for_any_number_of_threads(dtype: torch.dtype) -> None:
    x = clip((3, 5, 37, 31, 17), dtype)
    grad = gradient_for(x)
    first, *others = with_threads((1, 2, 3), lambda: run_saliency(motion_saliency, x, grad))
    for other in others:
        assert all(torch.equal(other[name], first[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_is_not_finite_in_the_reference_is_not_finite_in_the_op(dtype: torch.dtype) -> None:
    """Where both frames are finite, the op is finite too: an element does not depend on others."""
    values = torch.tensor([0.0, 1.0, -1.0, 3e38, -3e38, math.inf, -math.inf, math.nan], dtype=dtype)
    x = torch.cartesian_prod(values, values).T.reshape(1, 2, 1, 8, 8)
    for incoming in (1.0, 0.0, math.inf, math.nan):
        grad = torch.full((1, 1, 1, 8, 8), incoming, dtype=dtype)
        expected = run_saliency(reference.motion_saliency, x, grad)
        for name, result in run_saliency(motion_saliency, x, grad).items():
            assert not (result.isfinite() & ~expected[name].isfinite()).any(), name


# ---- Gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [motion_saliency, reference.motion_saliency], ids=["op", "reference"])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_against_finite_differences(frames: int, function: Any, device: torch.device) -> None:
    x = clip((2, frames, 3, 2, 4), device=device).requires_grad_()
    assert torch.autograd.gradcheck(function, x, eps=1e-6, atol=1e-8, rtol=1e-6)


def test_the_graph_keeps_nothing_but_the_clip() -> None:
    x = clip((2, 3, 4, 5, 6)).requires_grad_()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        motion_saliency(x)
    assert kept == [x.data_ptr()]


def test_without_gradients_nothing_is_recorded(device: torch.device) -> None:
    x = clip((2, 3, 4, 5, 6), device=device)
    assert motion_saliency(x).grad_fn is None
    x.requires_grad_()
    assert motion_saliency(x).grad_fn is not None
    with torch.no_grad():
        assert motion_saliency(x).grad_fn is None
    with torch.inference_mode():
        assert motion_saliency(x).is_inference()


def test_callers_of_the_bare_op_get_gradients_too(device: torch.device) -> None:
    x = clip((2, 3, 4, 5, 6), device=device).requires_grad_()
    torch.ops.sifa.motion_saliency(x).sum().backward()
    assert x.grad is not None
    assert x.grad.all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # from forward mode in PyTorch
def test_other_derivatives_are_refused_in_words(device: torch.device) -> None:
    x = clip((2, 3, 4, 5, 6), device=device).requires_grad_()
    (grad,) = torch.autograd.grad(motion_saliency(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="motion_saliency is differentiable once"):
        grad.sum().backward()
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode AD"):
        motion_saliency(forward_ad.make_dual(x.detach(), torch.ones_like(x)))
    with pytest.raises(NotImplementedError, match=r"forward mode AD \(jvp, jacfwd\): use jacrev"):
        torch.func.jacfwd(lambda x: motion_saliency(x).sum())(x.detach())


# ---- The rest of PyTorch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 4, 6, 5, 7), (1, 1, 3, 4, 5), (0, 3, 4, 5, 6)], ids=str)
def test_opcheck(shape: Shape, device: torch.device) -> None:
    x = clip(shape, device=device)
    torch.library.opcheck(torch.ops.sifa.motion_saliency_backward.default, (gradient_for(x), x))
    torch.library.opcheck(torch.ops.sifa.motion_saliency.default, (x.requires_grad_(),))


@pytest.mark.parametrize("shape", [*SHAPES, (2, 1, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fake_kernels_return_the_right_shapes_dtypes_and_strides(shape: Shape, dtype: torch.dtype) -> None:
    x = clip(shape, dtype)
    grad = gradient_for(x)
    real = motion_saliency(x), torch.ops.sifa.motion_saliency_backward(grad, x)
    x, grad = x.to("meta"), grad.to("meta")
    fake = motion_saliency(x), torch.ops.sifa.motion_saliency_backward(grad, x)
    for one, other in zip(real, fake, strict=True):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


def test_compiled_in_one_graph_for_all_sizes(device: torch.device) -> None:
    torch._dynamo.reset()
    graphs = 0

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

    compiled = torch.compile(lambda x: motion_saliency(x.relu()) * 2, backend=count, fullgraph=True, dynamic=True)
    for shape in ((2, 4, 6, 5, 7), (3, 5, 6, 8, 9)):
        x = clip(shape, device=device).requires_grad_()
        (expected,) = torch.autograd.grad((motion_saliency(x.relu()) * 2).sum(), x)
        (found,) = torch.autograd.grad(compiled(x).sum(), x)
        assert torch.equal(found, expected)
    assert graphs == 1


def test_exported_with_dynamic_sizes() -> None:
    class Saliency(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return motion_saliency(x)

    sizes = {0: torch.export.Dim("batch"), 3: torch.export.Dim("height")}
    program = torch.export.export(Saliency(), (clip((2, 4, 6, 5, 7)),), dynamic_shapes=(sizes,))
    x = clip((5, 4, 6, 9, 7))
    assert torch.equal(program.module()(x), motion_saliency(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_autocast_keeps_the_dtype(dtype: torch.dtype, device: torch.device) -> None:
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert motion_saliency(clip((1, 3, 4, 5, 6), dtype, device)).dtype == dtype


def test_torch_func(device: torch.device) -> None:
    """Gradients, vmap and gradients under vmap equal separate calls."""
    x = torch.stack([clip((2, 3, 4, 5, 6), device=device, scale=scale) for scale in (1.0, 2.0, 3.0)], dim=2)
    calls = x.unbind(2)
    slope = torch.func.grad(lambda x: motion_saliency(x).sin().sum())
    for function in (motion_saliency, slope):
        assert torch.equal(torch.func.vmap(function, in_dims=2)(x), torch.stack([function(call) for call in calls]))
    leaf = calls[1].clone().requires_grad_()
    motion_saliency(leaf).sin().sum().backward()
    assert leaf.grad is not None
    assert torch.equal(slope(calls[1]), leaf.grad)


def test_without_a_library_the_reference_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clip((1, 3, 4, 5, 6))
    compiled = motion_saliency(x)
    monkeypatch.setattr(library, "devices", frozenset())
    result = motion_saliency(x)
    assert relative_error(result, compiled) < TOLERANCE[x.dtype]
    assert result.is_contiguous()  # from the reference: the op returns channels innermost


# ---- Errors ---------------------------------------------------------------------------------------------------------

WRONG = {
    "four dimensions": (torch.zeros(2, 3, 4, 5), "x must be (N, T, C, H, W), got 4 dimensions: (2, 3, 4, 5)"),
    "integers": (
        torch.zeros(2, 3, 4, 5, 6, dtype=torch.int64),
        "x must be float64, float32, float16 or bfloat16, got torch.int64",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("function", [motion_saliency, reference.motion_saliency], ids=["op", "reference"])
@pytest.mark.parametrize("kind", ["cpu", "meta"])
def test_wrong_clips(kind: str, function: Any, name: str) -> None:
    x, message = WRONG[name]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        function(x.to(kind))


@pytest.mark.parametrize("function", [motion_saliency, reference.motion_saliency], ids=["op", "reference"])
def test_what_is_no_tensor(function: Any) -> None:
    with pytest.raises(TypeError, match=r"^x must be a tensor \(N, T, C, H, W\), got ndarray$"):
        function(np.zeros((2, 3, 4, 5, 6)))


@pytest.mark.parametrize(
    ("grad", "message"),
    [
        (torch.zeros(2, 3, 4, 5, 6), "grad must have the shape of the saliency, (2, 2, 4, 5, 6), got (2, 3, 4, 5, 6)"),
        (torch.zeros(2, 2, 4, 5, 6).double(), "grad must have the dtype of x, torch.float32, got torch.float64"),
    ],
)
@pytest.mark.parametrize("kind", ["cpu", "meta"])
def test_wrong_gradients(kind: str, grad: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        torch.ops.sifa.motion_saliency_backward(grad.to(kind), torch.zeros(2, 3, 4, 5, 6, device=kind))
