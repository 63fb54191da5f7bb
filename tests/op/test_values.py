"""The op equals the reference in plain PyTorch: shapes, dtypes, strides, neighbourhoods, heads, special offsets."""

import math

import pytest
import torch

from cuda_sifa import decomposition, inter_frame_attention, reference
from tests.op.cases import CASES, Case, is_same, layouts, relative_error, run_op, run_reference, with_threads

# A few hundred roundings of the dtype: sums over channels, corners and taps in another order.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case: Case, dtype: torch.dtype, device: torch.device) -> None:
    x, offset = case.inputs(dtype, device)
    grad = torch.randn_like(x)
    expected = run_reference(case, x, offset, grad)
    for name, result in run_op(case, x, offset, grad).items():
        assert result.dtype == dtype
        assert relative_error(result, expected[name]) < TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_half_precision_is_as_accurate_as_plain_pytorch(case: Case, dtype: torch.dtype, device: torch.device) -> None:
    """Compared with float64 on the same rounded inputs: at most twice the error of the reference, which rounds once."""
    x, offset = case.inputs(dtype, device)
    grad = torch.randn_like(x)
    exact = run_reference(case, x.double(), None if offset is None else offset.double(), grad.double())
    plain = run_reference(case, x, offset, grad)
    for name, result in run_op(case, x, offset, grad).items():
        assert result.dtype == dtype
        # Half a unit in the last place if plain PyTorch is exact by chance.
        allowed = 2 * relative_error(plain[name], exact[name]) + torch.finfo(dtype).eps / 2
        assert relative_error(result, exact[name]) <= allowed, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_offsets_in_float32_for_half_precision(dtype: torch.dtype, device: torch.device) -> None:
    case = Case(shape=(1, 3, 16, 5, 60))
    x, offset = case.inputs(dtype, device)
    assert offset is not None
    offset = offset.float() + 1e-4  # finer than both half types resolve
    grad = torch.randn_like(x)
    expected = run_reference(case, x, offset, grad)
    result = run_op(case, x, offset, grad)
    assert result["attended"].dtype == result["grad_x"].dtype == dtype
    assert result["grad_offset"].dtype == torch.float32
    for name in expected:
        assert relative_error(result[name], expected[name]) < 2 * torch.finfo(dtype).eps, name


@pytest.mark.parametrize("layout", list(layouts(torch.zeros(1, 1, 1, 1, 1))))
def test_any_strides(layout: str, device: torch.device) -> None:
    case = Case()
    x, offset = case.inputs(device=device)
    assert offset is not None
    grad = torch.randn_like(x)
    expected = run_reference(case, x, offset, grad)
    moved = layouts(x)[layout], layouts(offset)[layout], layouts(grad)[layout]
    for name, result in run_op(case, *moved).items():
        assert relative_error(result, expected[name]) < TOLERANCE[torch.float64], name


def test_stride_zero(device: torch.device) -> None:
    """Expanded inputs, and the expanded gradient of sum().backward(), equal their copies."""
    case = Case(shape=(3, 3, 4, 5, 6))
    x, offset = case.inputs(device=device)
    assert offset is not None
    x, offset = x[:1].expand(3, -1, -1, -1, -1), offset[:, :, :, :1].expand(-1, -1, -1, 5, -1)
    grad = torch.ones((), dtype=torch.float64, device=device).expand(x.shape)
    expected = run_reference(case, x.clone(), offset.clone(), grad.clone())
    for name, result in run_op(case, x, offset, grad).items():
        assert relative_error(result, expected[name]) < TOLERANCE[torch.float64], name


def test_channels_are_innermost_in_the_result() -> None:
    x, offset = Case().inputs()
    result = inter_frame_attention(x, offset)
    assert result.permute(0, 1, 3, 4, 2).is_contiguous()


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_zero_offsets_are_the_regular_neighbourhood(kernel_size: int, device: torch.device) -> None:
    case = Case(kernel_size=kernel_size, offset=None)
    x, _ = case.inputs(device=device)
    n, t, _, h, w = x.shape
    zeros = x.new_zeros(n, t - 1, 2 * kernel_size**2, h, w)
    regular = inter_frame_attention(x, None, kernel_size)
    assert relative_error(inter_frame_attention(x, zeros, kernel_size), regular) < TOLERANCE[torch.float64]


def test_by_hand() -> None:
    """One query and one tap, half a pixel to the right of the left pixel: the mean of 4 and 6, with weight 3 * 5."""
    x = torch.tensor([[3.0, 0.0], [4.0, 6.0]], dtype=torch.float64).view(1, 2, 1, 1, 2)
    offset = torch.tensor([[0.0, 0.0], [0.5, 0.0]], dtype=torch.float64).view(1, 1, 2, 1, 2)
    attended = inter_frame_attention(x, offset, kernel_size=1)
    assert attended.flatten().tolist() == [3 * 5 * 5, 0, 0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -1e30, 2.0**31, -(2.0**63)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_tap_far_outside_or_at_nan_contributes_nothing(
    value: float, dtype: torch.dtype, device: torch.device
) -> None:
    case = Case(shape=(1, 3, 5, 4, 6))
    x, offset = case.inputs(dtype, device)
    assert offset is not None
    strange, outside = offset.clone(), offset.clone()
    place = torch.tensor(value, dtype=torch.float64).to(device, dtype)
    strange[:, :, 4], outside[:, :, 4] = place, 1000.0  # the vertical displacement of tap 2, at every position
    strange[0, 0, 9, 1, 2], outside[0, 0, 9, 1, 2] = place, 1000.0
    grad = torch.randn_like(x)
    expected, result = run_op(case, x, outside, grad), run_op(case, x, strange, grad)
    for name in expected:
        assert is_same(name, result[name], expected[name]), name
    assert not result["grad_offset"][:, :, 4:6].any()
    for name, plain in run_reference(case, x, strange, grad).items():
        assert relative_error(result[name], plain) < 4 * torch.finfo(dtype).eps + 1e-13, name


@pytest.mark.parametrize("axis", ["y", "x"])
def test_the_border_is_zero_from_one_pixel_outside(axis: str, device: torch.device) -> None:
    """Samples fall to zero within one pixel around the map: at -1 and at the size they are zero."""
    x = torch.ones(1, 2, 1, 4, 4, dtype=torch.float64, device=device)
    for place, expected in [
        (-1.0, 0.0),
        (-0.75, 0.25),
        (-0.25, 0.75),
        (0.0, 1.0),
        (3.0, 1.0),
        (3.25, 0.75),
        (4.0, 0.0),
    ]:
        offset = torch.zeros(1, 1, 2, 4, 4, dtype=torch.float64, device=device)
        offset[0, 0, "yx".index(axis), 0, 0] = place
        sampled = inter_frame_attention(x, offset, kernel_size=1)[0, 0, 0, 0, 0]  # 1 * s * s
        assert sampled.item() == pytest.approx(expected**2, abs=1e-15)


@pytest.mark.parametrize(
    "shape",
    [
        (0, 3, 4, 5, 6),
        (2, 1, 4, 5, 6),
        (2, 0, 4, 5, 6),
        (1, 2, 4, 0, 6),
        (1, 2, 4, 5, 0),
        (1, 2, 0, 5, 6),
        (1, 1, 3, 1, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("deformable", [True, False])
def test_nothing_to_attend_to(shape: tuple[int, ...], deformable: bool, device: torch.device) -> None:
    """Empty inputs give empty results, and a single frame gives zeros, with gradients."""
    case = Case(shape=shape, offset=1.0 if deformable else None)  # type: ignore[arg-type]
    x, offset = case.inputs(device=device)
    for run in (run_op, run_reference):
        for name, result in run(case, x, offset, torch.ones_like(x)).items():
            assert result.shape == (offset.shape if name == "grad_offset" and offset is not None else x.shape)
            assert not result.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("offset", [1.5, None])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_residual_is_the_sum(frames: int, offset: float | None, dtype: torch.dtype, device: torch.device) -> None:
    """x + attended and its gradients, to the rounding of one sum: one rounding less in half precision."""
    plain = Case(shape=(2, frames, 40, 4, 5), offset=offset)
    x, field = plain.inputs(dtype, device)
    grad = torch.randn_like(x)
    expected = run_op(plain, x, field, grad)
    expected["attended"] = x + expected["attended"]
    expected["grad_x"] = grad + expected["grad_x"]
    for name, result in run_op(Case(**vars(plain) | {"residual": True}), x, field, grad).items():
        assert relative_error(result, expected[name]) <= 2 * torch.finfo(dtype).eps, name
    alone = inter_frame_attention(x, field, residual=True)
    assert torch.equal(alone[:, -1], x[:, -1])
    assert alone.data_ptr() != x.data_ptr()


def test_the_last_frame_attends_to_nothing(device: torch.device) -> None:
    x, offset = Case().inputs(device=device)
    attended = inter_frame_attention(x, offset)
    assert not attended[:, -1].any()
    assert attended[:, :-1].all()


def test_the_inputs_are_not_changed(device: torch.device) -> None:
    case = Case()
    x, offset = case.inputs(device=device)
    assert offset is not None
    grad = torch.randn_like(x)
    copies = x.clone(), offset.clone(), grad.clone()
    run_op(case, x, offset, grad)
    assert all(torch.equal(a, b) for a, b in zip((x, offset, grad), copies, strict=True))


@pytest.mark.parametrize("case", [Case(shape=(3, 5, 37, 9, 8)), Case(shape=(2, 6, 16, 9, 8), offset=None)], ids=str)
def test_the_same_bits_for_any_number_of_threads(case: Case) -> None:
    x, offset = case.inputs(torch.float32)
    grad = torch.randn_like(x)
    first, *others = with_threads((1, 2, 3, 1), lambda: run_op(case, x, offset, grad))
    for other in others:
        assert all(torch.equal(other[name], first[name]) for name in other)


def test_an_overflow_is_the_same_for_any_number_of_threads() -> None:
    """The threads determine which positions share a block with one between pixels. The sums must not change."""
    x = torch.ones(1, 2, 1, 1, 40002)
    x[..., 20010] = 1e30
    offset = torch.zeros(1, 1, 2, 1, 40002)
    offset[0, 0, 1, 0, 20016] = 0.5
    first, *others = with_threads((1, 2, 3), lambda: inter_frame_attention(x, offset, kernel_size=1)[0, 0, 0, 0])
    assert first[20010].isinf()
    for other in others:
        assert torch.equal(other, first)


@pytest.mark.parametrize("channels", [1024, 1025])
def test_large_values_whose_mean_product_is_finite(channels: int) -> None:
    """The scale is applied before the second product, as in the reference: 9 x 2.5e23 x 5e11, not 1024 times that."""
    x = torch.full((1, 2, channels, 3, 3), 5e11)
    attended = inter_frame_attention(x)
    assert attended[0, 0, :, 1, 1].isfinite().all()
    assert relative_error(attended, reference.inter_frame_attention(x)) < TOLERANCE[torch.float32]


def test_groups_are_heads(device: torch.device) -> None:
    """g heads of C/g channels equal g calls with those channels and the same offsets."""
    case = Case(shape=(2, 3, 6, 5, 7), groups=3)
    x, offset = case.inputs(device=device)
    heads = [inter_frame_attention(part, offset) for part in x.chunk(3, dim=2)]
    together = inter_frame_attention(x, offset, groups=3)
    assert relative_error(together, torch.cat(heads, dim=2)) < TOLERANCE[torch.float64]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_decomposition_for_exporters_is_the_op(case: Case) -> None:
    x, offset = case.inputs()
    expected = reference.inter_frame_attention(x, offset, **case.settings)
    assert relative_error(decomposition.inter_frame_attention(x, offset, **case.settings), expected) < 1e-11


def test_the_reference_is_the_definition() -> None:
    """The reference equals loops over every index, written from the formula in the paper."""
    case = Case(shape=(1, 2, 4, 3, 4), groups=2, dilation=2)
    x, offset = case.inputs()
    assert offset is not None
    _n, _t, c, h, w = x.shape
    expected = torch.zeros_like(x)
    for y in range(h):
        for col in range(w):
            for tap in range(9):
                py = y + (tap // 3 - 1) * 2 + offset[0, 0, 2 * tap, y, col].item()
                px = col + (tap % 3 - 1) * 2 + offset[0, 0, 2 * tap + 1, y, col].item()
                sample = torch.zeros(c, dtype=torch.float64)
                for row in range(h):
                    for column in range(w):
                        weight = max(0.0, 1 - abs(py - row)) * max(0.0, 1 - abs(px - column))
                        sample += weight * x[0, 1, :, row, column]
                for head in (slice(0, 2), slice(2, 4)):
                    score = (x[0, 0, head, y, col] @ sample[head]) / 2
                    expected[0, 0, head, y, col] += score * sample[head]
    assert relative_error(reference.inter_frame_attention(x, offset, **case.settings), expected) < 1e-14
