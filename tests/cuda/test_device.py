"""Tests that need a GPU: CPU against CUDA, large inputs, streams, graphs, memory, determinism, several GPUs.

The tests in tests/op run on CUDA too.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cuda_sifa import inter_frame_attention, library
from tests.op.cases import CASES, Case, relative_error, run_op

pytestmark = pytest.mark.cuda
NETWORKS = [
    Case(shape=(2, 4, 128, 28, 28), offset=1.0),
    Case(shape=(2, 4, 256, 14, 14), offset=1.0),
    Case(shape=(2, 4, 512, 7, 7), offset=1.0),
    Case(shape=(1, 3, 1024, 7, 7), offset=1.0),
    Case(shape=(2, 4, 256, 14, 14), offset=None),
    Case(shape=(1, 3, 96, 28, 28), groups=3, offset=1.0),
    Case(shape=(1, 2, 192, 14, 14), offset=1.0),
    Case(shape=(1, 2, 768, 7, 7), offset=1.0),
]


@pytest.fixture(autouse=True)
def _kernels() -> None:
    assert "cuda" in library.devices, f"the library has no CUDA kernels: built for {library.build}"


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(
    case: Case, dtype: torch.dtype = torch.float32, device: str = "cuda"
) -> tuple[Tensor, Tensor | None, Tensor]:
    """x with channels innermost, as in the networks, offset and gradient."""
    x, offset = case.inputs(dtype, device)
    x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return x, offset, torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)


@pytest.mark.parametrize("case", CASES + NETWORKS, ids=str)
def test_the_cpu_and_the_gpu_agree(case: Case) -> None:
    x, offset, grad = inputs(case)
    expected = run_op(case, x.cpu(), None if offset is None else offset.cpu(), grad.cpu())
    for name, result in run_op(case, x, offset, grad).items():
        assert result.is_cuda
        assert relative_error(result.cpu(), expected[name]) < 1e-5, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", NETWORKS, ids=str)
def test_half_precision_in_the_networks_shapes(case: Case, dtype: torch.dtype) -> None:
    """Compared with float64 on the same rounded inputs: hardly more than the rounding of the result."""
    x, offset, grad = inputs(case, dtype)
    exact = run_op(case, x.double(), None if offset is None else offset.double(), grad.double())
    for name, result in run_op(case, x, offset, grad).items():
        assert relative_error(result, exact[name]) < torch.finfo(dtype).eps, name


def test_more_elements_than_31_bits_count() -> None:
    """The last clip of a batch of more than 2^31 elements has the same result as in a batch of one."""
    case = Case(shape=(1, 2, 64, 128, 128), offset=1.0)
    clip, offset, grad = inputs(case, torch.float16)
    assert offset is not None
    count = 2**31 // clip.numel() + 2
    free, _ = torch.cuda.mem_get_info()
    if free < 20 * count * clip.numel():
        pytest.skip("needs a GPU with some 40 GB to spare")
    alone = run_op(case, clip, offset, grad)
    x = torch.zeros(count, 2, 128, 128, 64, dtype=torch.float16, device="cuda").permute(0, 1, 4, 2, 3)
    field = torch.zeros(1, 1, 128, 128, 18, dtype=torch.float16, device="cuda").expand(count, -1, -1, -1, -1).clone()
    field = field.permute(0, 1, 4, 2, 3)
    incoming = torch.zeros_like(x)
    x[-1], field[-1], incoming[-1] = clip[0], offset[0], grad[0]
    assert x.numel() > 2**31
    together = run_op(case, x, field, incoming)
    assert torch.equal(together["attended"][-1], alone["attended"][0])
    assert torch.equal(together["grad_offset"][-1], alone["grad_offset"][0])
    assert relative_error(together["grad_x"][-1], alone["grad_x"][0]) < 1e-3
    assert not together["attended"][:-1].any()


@pytest.mark.parametrize("offset", [1.0, None])
def test_on_another_stream(offset: float | None) -> None:
    case = Case(shape=(2, 4, 64, 28, 28), offset=offset)
    x, field, grad = inputs(case)
    expected = run_op(case, x, field, grad)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # code that does not wait for this stream reads x too early
        late = x.clone()
        result = run_op(case, late, field, grad)
    stream.synchronize()
    for name in expected:
        assert relative_error(result[name], expected[name]) < 1e-5, name


def test_in_a_cuda_graph() -> None:
    case = Case(shape=(2, 4, 64, 14, 14), offset=1.0)
    x, offset, grad = inputs(case)
    assert offset is not None
    operator, settings = torch.ops.sifa.inter_frame_attention, (3, 1, 1)
    operator_backward = torch.ops.sifa.inter_frame_attention_backward
    operator(x, offset, *settings)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        attended = operator(x, offset, *settings)
        grad_x, grad_offset = operator_backward(grad, x, offset, *settings)
    x.copy_(torch.randn_like(x))
    graph.replay()
    expected = run_op(case, x, offset, grad)
    for name, result in (("attended", attended), ("grad_x", grad_x), ("grad_offset", grad_offset)):
        assert relative_error(result, expected[name]) < 1e-5, name


def peak_of(function: object) -> int:
    """The peak of the allocated bytes, less what was allocated before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # a cached block may be larger than the request, and counts in full
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = function()  # type: ignore[operator]
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    del kept
    return peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("offset", [1.0, None])
def test_memory_beyond_inputs_and_outputs(dtype: torch.dtype, offset: float | None) -> None:
    """None in the forward pass; at most a float32 copy of the gradient of x in the backward pass."""
    x, field, grad = inputs(Case(shape=(8, 4, 128, 28, 28), offset=offset), dtype)
    grad = grad.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    size = x.numel() * x.element_size()
    fields = 0 if field is None else field.numel() * field.element_size()
    slack = 2**20  # the allocator's rounding
    assert peak_of(lambda: torch.ops.sifa.inter_frame_attention(x, field, 3, 1, 1)) <= size + slack
    backward = peak_of(lambda: torch.ops.sifa.inter_frame_attention_backward(grad, x, field, 3, 1, 1))
    assert backward <= size + fields + 4 * x.numel() + slack


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("case", NETWORKS, ids=str)
def test_deterministic_algorithms_give_the_same_bits(case: Case) -> None:
    x, offset, grad = inputs(case)
    first = run_op(case, x, offset, grad)
    for _ in range(3):
        again = run_op(case, x, offset, grad)
        assert all(torch.equal(again[name], first[name]) for name in first)
    expected = run_op(case, x.cpu(), None if offset is None else offset.cpu(), grad.cpu())
    for name, result in first.items():
        assert relative_error(result.cpu(), expected[name]) < 1e-5, name


def test_under_autocast_half_inputs_stay_as_they_are() -> None:
    x, offset, _ = inputs(Case(shape=(1, 3, 16, 6, 7)), torch.bfloat16)
    with torch.autocast("cuda", torch.float16):
        assert inter_frame_attention(x, offset).dtype == torch.bfloat16


def test_compiled_whole_on_the_gpu() -> None:
    case = Case(shape=(1, 3, 16, 6, 7))
    x, offset, _ = inputs(case)
    compiled = torch.compile(lambda x, offset: inter_frame_attention(x * 2, offset) + 1, fullgraph=True)
    assert relative_error(compiled(x, offset), inter_frame_attention(x * 2, offset) + 1) < 1e-5


def test_the_device_of_the_tensors_not_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    case = Case(shape=(1, 3, 16, 6, 7))
    expected = run_op(case, *inputs(case, device="cuda:0"))
    with torch.cuda.device(0):
        for name, result in run_op(case, *inputs(case, device="cuda:1")).items():
            assert result.device == torch.device("cuda:1")
            assert relative_error(result.cpu(), expected[name].cpu()) < 1e-5, name
