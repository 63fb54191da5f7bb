"""The CUDA kernels, run on the CPU, against the reference.

Every thread of a block is a fibre, and the address and undefined-behaviour sanitizers check every access. Needs g++, no
GPU and no CUDA. test_compiled.py runs these tests on the compiled kernels.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cuda.emulator import SANITIZED, Call, Emulator, Program, assert_equal, build
from tests.op.cases import Case, relative_error

GOLDEN = Path(__file__).parents[1] / "data" / "op.npz"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("emulated") / "emulated", *SANITIZED)


@pytest.fixture(name="emulate")
def _emulate(program: Path, tmp_path: Path) -> Emulator:
    return Program([str(program)], tmp_path)


def test_the_golden_results(emulate: Emulator) -> None:
    """The golden cases of the release, the result and both gradients."""
    with np.load(GOLDEN) as arrays:
        names = sorted({key.split("/")[0] for key in arrays.files})
        cases = [
            {key.split("/")[1]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith(f"{name}/")}
            for name in names
        ]
    cases = [case for case in cases if case["x"].shape[2] > 1]  # a single frame has no offset
    assert len(cases) == 10
    calls = [
        Call(
            case["x"].transpose(1, 2),
            case["offset"].transpose(1, 2)[:, 1:],
            case["grad_attended"].transpose(1, 2),
            int(case["kernel_size"]),
            int(case["dilation"]),
        )
        for case in cases
    ]
    for case, found in zip(cases, emulate(calls), strict=True):
        assert relative_error(found["attended"], case["attended"].transpose(1, 2)) < 1e-9
        assert relative_error(found["grad_x"], case["grad_x"].transpose(1, 2)) < 1e-9
        assert relative_error(found["grad_offset"], case["grad_offset"].transpose(1, 2)[:, 1:]) < 1e-9


SHAPES = [
    Case(),
    Case(offset=None),
    Case(shape=(2, 1, 6, 5, 4), offset=None),  # a single frame: zeros
    Case(kernel_size=1),
    Case(kernel_size=1, offset=None),
    Case(kernel_size=5, shape=(1, 3, 6, 5, 4)),
    Case(kernel_size=7, shape=(1, 2, 3, 6, 4)),
    Case(kernel_size=7, shape=(1, 2, 4, 9, 4), offset=None),
    Case(kernel_size=9, shape=(1, 2, 2, 3, 4)),
    Case(dilation=2, shape=(1, 2, 8, 5, 7)),
    Case(dilation=3, offset=None),
    Case(dilation=40, shape=(1, 2, 4, 5, 7)),  # every tap but the centre outside
    Case(groups=2, shape=(1, 3, 8, 5, 7)),
    Case(groups=6, kernel_size=5, dilation=2, shape=(1, 2, 6, 3, 4)),
    Case(groups=3, offset=None),
    Case(offset=0.2, shape=(1, 2, 4, 9, 17)),  # several tiles
    Case(offset=20.0),  # most samples outside
    Case(shape=(1, 2, 1, 1, 1)),
    Case(shape=(1, 2, 5, 1, 6)),
    Case(shape=(3, 2, 5, 6, 1)),
    Case(shape=(1, 2, 4, 2, 90), offset=15.0),  # taps far apart
]
# The same with whole vectors of channels, for the fast backward kernel.
WHOLE = [
    Case(shape=(2, 5, 8, 5, 7)),
    Case(kernel_size=1, shape=(2, 3, 8, 5, 7)),
    Case(kernel_size=5, shape=(1, 3, 4, 5, 7)),
    Case(kernel_size=5, shape=(1, 2, 4, 12, 13), offset=0.3, dilation=2),
    Case(kernel_size=7, shape=(1, 2, 8, 6, 4)),
    Case(dilation=2, shape=(1, 3, 8, 9, 7), offset=0.5),
    Case(dilation=4, shape=(1, 2, 4, 20, 18), offset=0.3),
    Case(dilation=40, shape=(1, 2, 4, 5, 7)),
    Case(groups=3, shape=(2, 3, 24, 4, 5)),
    Case(offset=0.2, shape=(1, 2, 8, 9, 17)),
    Case(offset=4.0, shape=(1, 2, 8, 9, 17)),  # some pixels far from their tile
    Case(offset=20.0, shape=(1, 2, 4, 9, 17)),
    Case(shape=(1, 2, 4, 1, 6)),
    Case(shape=(3, 2, 4, 6, 1)),
]
# The residual: the fast kernels, one tap after the other, the regular neighbourhood; an odd and an even last frame.
RESIDUAL = [
    Case(residual=True, shape=(2, 4, 8, 5, 7)),
    Case(residual=True, shape=(1, 3, 6, 4, 5)),
    Case(residual=True, shape=(1, 2, 128, 2, 3), kernel_size=5),
    Case(residual=True, shape=(1, 3, 1032, 1, 2)),
    Case(residual=True, shape=(2, 3, 24, 4, 5), groups=3, offset=None),
    Case(residual=True, shape=(2, 1, 8, 4, 5), offset=None),
]
# Channels: lanes and vectors with and without remainder, more channels than one group of lanes holds.
CHANNELS = [Case(shape=(1, 2, c, 2, 3)) for c in (1, 3, 4, 8, 16, 17, 31, 64, 71, 128, 132, 257, 520)]
CHANNELS += [Case(shape=(1, 2, 1032, 1, 2), offset=offset) for offset in (1.5, None)]
CHANNELS += [Case(shape=(1, 2, 520, 1, 2), groups=2)]
# Heads that fill the lanes of a group exactly or not, from few lanes to several vectors in each of 32 lanes; numbers of
# positions that are no multiple of the groups in a warp.
HEADS = [Case(shape=(1, 2, c, 1, 5)) for c in (24, 40, 64, 96, 128, 192, 256, 384, 512, 768, 1024)]
HEADS += [Case(shape=(1, 2, c, 1, 3), kernel_size=k) for c, k in ((16, 1), (200, 5), (600, 5), (64, 7), (2056, 1))]
# Without offsets: from lanes that the head does not fill to more channels than 32 lanes hold.
REGULAR = [Case(shape=(1, 2, c, 2, 3), offset=None) for c in (4, 31, 64, 96, 128, 257, 516, 768, 1024, 2056)]


def test_shapes(emulate: Emulator) -> None:
    assert_equal(emulate, [Call.of(case) for case in SHAPES + WHOLE + RESIDUAL])


def test_channels(emulate: Emulator) -> None:
    assert_equal(emulate, [Call.of(case) for case in CHANNELS + HEADS + REGULAR])


def test_double(emulate: Emulator) -> None:
    cases = [*SHAPES[:8], *WHOLE[:6], *CHANNELS[2:12:3], *HEADS[::2], Case(shape=(1, 2, 520, 1, 2))]
    assert_equal(emulate, [Call.of(case, torch.float64) for case in cases])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_as_accurate_as_plain_pytorch(dtype: torch.dtype, emulate: Emulator) -> None:
    """Compared with float64 on the same rounded inputs: at most twice the error of the reference, which rounds once."""
    cases = [
        *SHAPES[:4],
        *WHOLE[1:6],
        Case(shape=(2, 4, 16, 5, 7)),
        *CHANNELS[::3],
        *HEADS,
        *REGULAR,
        Case(shape=(1, 3, 24, 4, 5), groups=3),
        *RESIDUAL,
    ]
    cases += [Case(shape=(1, 3, 24, 4, 5), groups=3), Case(shape=(1, 3, 24, 4, 5), offset=None)]
    cases += [Case(shape=(1, 2, 1032, 1, 2))]
    calls = [Call.of(case, dtype) for case in cases]
    for call, found in zip(calls, emulate(calls), strict=True):
        exact, plain = call.expected(torch.float64), call.expected()
        for name, result in found.items():
            # Half a unit in the last place if plain PyTorch is exact by chance.
            allowed = 2 * relative_error(plain[name], exact[name]) + torch.finfo(dtype).eps / 2
            assert relative_error(result, exact[name]) <= allowed, f"{name} of {call}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_offsets_in_float32_for_half_precision(dtype: torch.dtype, emulate: Emulator) -> None:
    call = Call.of(Case(shape=(1, 3, 16, 5, 60)), dtype)
    assert call.offset is not None
    call.offset = call.offset.float() + 1e-4  # finer than both half types resolve
    assert_equal(emulate, [call], tolerance=2 * torch.finfo(dtype).eps)


def test_integer_offsets(emulate: Emulator) -> None:
    """Training starts at zero offsets: three of four corners have weight zero, and the slope is the right-hand one."""
    calls = [Call.of(Case(shape=(2, 3, 8, 5, 6))) for _ in range(2)]
    for call, scale in zip(calls, (0, 1), strict=True):
        assert call.offset is not None
        call.offset = (call.offset * scale).round()
    assert_equal(emulate, calls)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e9])
def test_a_tap_far_outside_or_at_nan_contributes_nothing(value: float, emulate: Emulator) -> None:
    strange, outside = Call.of(Case(shape=(1, 3, 8, 4, 6))), Call.of(Case(shape=(1, 3, 8, 4, 6)))
    outside.grad = strange.grad
    assert strange.offset is not None
    assert outside.offset is not None
    strange.offset[:, :, 4], outside.offset[:, :, 4] = value, 1000.0  # the vertical displacement of tap 2
    strange.offset[0, 0, 9, 1, 2], outside.offset[0, 0, 9, 1, 2] = value, 1000.0
    result, expected = emulate([strange, outside])
    for name in expected:
        assert torch.equal(result[name], expected[name]), name
    assert not result["grad_offset"][:, :, 4:6].any()
    assert_equal(emulate, [outside])


def test_strides_of_the_offset(emulate: Emulator) -> None:
    calls = [Call.of(Case(shape=(2, 3, 8, 4, 6))) for _ in range(3)]
    for call, order in zip(calls, [(0, 1, 3, 4, 2), (4, 3, 2, 1, 0), (0, 1, 2, 4, 3)], strict=True):
        assert call.offset is not None
        call.offset = call.offset.permute(order).contiguous().permute(*np.argsort(order).tolist())
    assert calls[2].offset is not None
    calls[2].offset = calls[2].offset[:, :, :, :, :1].expand(-1, -1, -1, -1, 6)  # stride 0
    assert_equal(emulate, calls)


def test_memory_that_is_not_aligned_for_vectors(emulate: Emulator) -> None:
    assert_equal(emulate, [Call.of(Case(shape=(1, 3, 8, 4, 6)), shift=1), Call.of(Case(offset=None), shift=3)])


def test_tiles_of_every_size(emulate: Emulator) -> None:
    case = Case(shape=(1, 3, 8, 9, 19), offset=0.5)
    assert_equal(emulate, [Call.of(case, multiprocessors=count) for count in (1, 4, 8, 1000)])


@pytest.mark.parametrize("order", [0, 1])
def test_more_tiles_than_blocks(order: int, emulate: Emulator) -> None:
    cases = [Case(shape=(2, 4, channels, 5, 9), offset=offset) for channels in (6, 8) for offset in (1.5, None)]
    assert_equal(emulate, [Call.of(case, max_blocks=2, multiprocessors=9, order=order) for case in cases])


@pytest.mark.parametrize("deterministic", [False, True])
def test_any_order_of_the_threads(deterministic: bool, emulate: Emulator) -> None:
    """The order of the threads between two barriers does not matter.

    Only the gradients of the keys may differ in their last bits, and with deterministic=True not even those.
    """
    for case in (Case(shape=(2, 4, 8, 7, 9)), Case(shape=(1, 3, 12, 5, 6), groups=3), Case(offset=None)):
        calls = [Call.of(case, order=order, deterministic=deterministic) for order in (0, 1, 2)]
        for call in calls:
            call.grad = calls[0].grad
        assert_equal(emulate, calls)
        first, *others = emulate(calls)
        for other in others:
            for name in first:
                if deterministic or case.offset is None or name != "grad_x":
                    assert torch.equal(first[name], other[name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_deterministic_gradient_in_other_types(dtype: torch.dtype, emulate: Emulator) -> None:
    tolerance = 1e-13 if dtype == torch.float64 else torch.finfo(dtype).eps
    cases = [Case(shape=(1, 4, 8, 4, 5)), Case(shape=(1, 3, 8, 4, 5), residual=True)]
    calls = [Call.of(case, dtype, deterministic=True, max_blocks=blocks) for case in cases for blocks in (1, 9)]
    assert_equal(emulate, calls, tolerance)


# Whole vectors of channels or not, several blocks, memory that is not aligned, one frame.
CLIPS: list[tuple[tuple[int, ...], dict[str, int]]] = [
    ((2, 4, 6, 5, 7), {}),
    ((1, 3, 64, 5, 9), {}),
    ((3, 2, 5, 1, 3), {}),
    ((1, 9, 16, 3, 4), {"order": 1}),
    ((1, 3, 16, 3, 4), {"shift": 1}),
    ((2, 3, 64, 5, 9), {"max_blocks": 2}),
    ((2, 1, 8, 3, 4), {}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_motion_saliency(dtype: torch.dtype, emulate: Emulator) -> None:
    assert_equal(emulate, [Call.of_saliency(*shape, dtype=dtype, **settings) for shape, settings in CLIPS])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_motion_saliency_in_half_precision_is_rounded_once(dtype: torch.dtype, emulate: Emulator) -> None:
    calls = [Call.of_saliency(*shape, dtype=dtype, **settings) for shape, settings in CLIPS]
    for call, found in zip(calls, emulate(calls), strict=True):
        exact = call.expected(torch.float64)
        for name, result in found.items():
            assert relative_error(result, exact[name]) <= torch.finfo(dtype).eps / 2, f"{name} of {call}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("distance", [200.0, 2000.0])
def test_the_motion_saliency_of_frames_that_differ_much(distance: float, dtype: torch.dtype, emulate: Emulator) -> None:
    """The exponential function overflows, its reciprocal is zero."""
    call = Call.of_saliency(1, 3, 4, 2, 3, dtype=dtype)
    call.x[:, 1] += distance  # sigmoids of +distance, then of -distance
    assert_equal(emulate, [call])
