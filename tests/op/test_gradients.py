"""The gradients: finite differences, integer positions, all ways to call the op."""

from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from cuda_sifa import inter_frame_attention, reference
from tests.op.cases import Case, relative_error, run_op, run_reference

SMALL = [
    Case(shape=(1, 3, 4, 3, 4)),
    Case(shape=(1, 2, 2, 2, 3)),
    Case(shape=(2, 2, 3, 2, 3), kernel_size=1),
    Case(shape=(1, 2, 2, 4, 3), kernel_size=5, dilation=2),
    Case(shape=(1, 3, 4, 3, 3), groups=2),
    Case(shape=(1, 2, 3, 3, 4), offset=4.0),
    Case(shape=(1, 2, 2, 2, 3), kernel_size=7),
    Case(shape=(2, 3, 4, 3, 4), offset=None),
    Case(shape=(1, 1, 3, 3, 4)),
    Case(shape=(1, 3, 4, 3, 4), residual=True),
    Case(shape=(2, 1, 3, 2, 3), residual=True),
]


@pytest.mark.parametrize(
    ("function", "case"),
    [
        *(pytest.param(inter_frame_attention, case, id=f"op-{case}") for case in SMALL),
        *(pytest.param(reference.inter_frame_attention, case, id=f"reference-{case}") for case in SMALL),
    ],
)
def test_against_finite_differences(function: object, case: Case, device: torch.device) -> None:
    x, offset = case.inputs(torch.float64, device)
    inputs = tuple(v.requires_grad_() for v in (x, offset) if v is not None)
    settings = case.settings | ({"residual": True} if case.residual else {})
    assert torch.autograd.gradcheck(
        lambda x, offset=None: function(x, offset, **settings),  # type: ignore[operator]
        inputs,
        eps=1e-6,
        atol=1e-8,
        rtol=1e-6,
        # All entries of the Jacobian; random sums of them for larger inputs of the reference, which is slow.
        fast_mode=function is reference.inter_frame_attention and sum(v.numel() for v in inputs) > 150,
    )


@pytest.mark.parametrize("place", [0.0, 1.0, -1.0, 2.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_at_an_integer_the_slope_is_that_of_the_cell_to_the_lower_right(
    place: float, axis: int, device: torch.device
) -> None:
    """Training starts at offsets of exactly zero, where the derivative jumps: it is the right-hand difference."""
    case = Case(shape=(1, 2, 3, 4, 5), kernel_size=1)
    x, _ = case.inputs(device=device)
    offset = torch.full((1, 1, 2, 4, 5), 0.3, dtype=torch.float64, device=device)
    offset[:, :, axis] = place
    offset.requires_grad_()
    (slope,) = torch.autograd.grad(inter_frame_attention(x, offset, kernel_size=1).sum(), offset)

    step = 1e-6
    moved = offset.detach().clone()
    moved[:, :, axis] += step
    # Each position has one tap, so the change of its result is the slope by its offset.
    change = inter_frame_attention(x, moved, kernel_size=1) - inter_frame_attention(x, offset, kernel_size=1)
    right = change[:, 0].sum(1) / step
    assert relative_error(slope[:, 0, axis], right) < 1e-4  # the error of the finite step
    assert slope[:, 0, axis].abs().max() > 0.1


@pytest.mark.parametrize("channels", [17, 64, 144])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_integer_offsets_equal_the_reference(dtype: torch.dtype, channels: int, device: torch.device) -> None:
    case = Case(shape=(2, 3, channels, 5, 6))
    x, offset = case.inputs(dtype, device)
    assert offset is not None
    offset = offset.round()
    offset[:, 0, :, 2, 3] += 0.5  # one position between pixels
    grad = torch.randn_like(x)
    expected = run_reference(case, x, offset, grad)
    for name, result in run_op(case, x, offset, grad).items():
        assert relative_error(result, expected[name]) < (1e-13 if dtype == torch.float64 else 1e-5), name


@pytest.mark.parametrize("needs", ["x", "offset"])
def test_one_gradient_alone(needs: str, device: torch.device) -> None:
    case = Case()
    x, offset = case.inputs(device=device)
    assert offset is not None
    expected = run_reference(case, x, offset, torch.ones_like(x))
    (x if needs == "x" else offset).requires_grad_()
    inter_frame_attention(x, offset).sum().backward()
    result = {"x": x.grad, "offset": offset.grad}
    assert relative_error(result.pop(needs), expected[f"grad_{needs}"]) < 1e-13  # type: ignore[arg-type]
    assert list(result.values()) == [None]


def test_without_gradients_nothing_is_recorded(device: torch.device) -> None:
    """The op skips autograd if no input needs a gradient, and only then."""
    x, offset = Case().inputs(device=device)
    assert offset is not None
    plain = inter_frame_attention(x, offset)
    assert not plain.requires_grad
    x.requires_grad_()
    assert inter_frame_attention(x, offset).grad_fn is not None
    assert inter_frame_attention(x.detach(), offset.requires_grad_()).grad_fn is not None
    with torch.no_grad():
        assert torch.equal(inter_frame_attention(x, offset), plain)
        assert not inter_frame_attention(x, offset).requires_grad
    with torch.inference_mode():
        assert inter_frame_attention(x, offset).is_inference()


def test_a_mode_may_have_its_own_gradient(device: torch.device) -> None:
    """The mode scales the input of the op by a trainable value, as adapters do."""
    scale = torch.tensor(2.0, dtype=torch.float64, device=device, requires_grad=True)

    class Scaled(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.sifa.inter_frame_attention:
                args = (args[0] * scale, *args[1:])
            return function(*args, **(kwargs or {}))

    x, offset = Case().inputs(device=device)
    with Scaled():
        attended = inter_frame_attention(x, offset)
    (slope,) = torch.autograd.grad(attended.sum(), scale)
    assert relative_error(slope, 3 * scale**2 * inter_frame_attention(x, offset).sum()) < 1e-12


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # from forward mode in PyTorch
def test_forward_mode_raises_an_error(device: torch.device) -> None:
    x, offset = Case().inputs(device=device)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode AD"):
        inter_frame_attention(forward_ad.make_dual(x, torch.ones_like(x)), offset)


def test_callers_of_the_bare_op_get_gradients_too(device: torch.device) -> None:
    x, offset = Case().inputs(device=device)
    assert offset is not None
    x.requires_grad_()
    offset.requires_grad_()
    torch.ops.sifa.inter_frame_attention(x, offset, 3, 1, 1).sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert offset.grad is not None
    assert offset.grad.any()


def test_a_second_derivative_raises_an_error(device: torch.device) -> None:
    x, offset = Case().inputs(device=device)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(inter_frame_attention(x, offset).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        grad.sum().backward()


def test_the_graph_keeps_nothing_but_the_inputs() -> None:
    x, offset = Case().inputs()
    assert offset is not None
    x.requires_grad_()
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        inter_frame_attention(x, offset)
    assert {tensor.data_ptr() for tensor in kept} == {x.data_ptr(), offset.data_ptr()}
