"""The op in PyTorch: opcheck, tracing, compilation, autocast, FLOP counting."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from cuda_sifa import calls, inter_frame_attention, ops
from models import InterFrameAttention
from tests.op.cases import CASES, Case, is_same, relative_error, run_op

SAMPLES = [
    Case(),
    Case(offset=None),
    Case(kernel_size=5, groups=2, dilation=2),
    Case(shape=(1, 1, 3, 4, 5)),
    Case(shape=(0, 3, 4, 5, 6)),
    Case(residual=True),
]


@pytest.mark.parametrize("case", SAMPLES, ids=str)
def test_opcheck(case: Case, device: torch.device) -> None:
    """Schema, autograd registration, fake kernels and AOT dispatch with dynamic shapes, forward and backward."""
    x, offset = case.inputs(device=device)
    inputs = [v if v is None else v.requires_grad_() for v in (x, offset)]
    settings = tuple(case.settings.values())
    torch.library.opcheck(torch.ops.sifa.inter_frame_attention.default, (*inputs, *settings, case.residual))
    detached = [v if v is None else v.detach() for v in inputs]
    grad = torch.randn_like(x)
    settings = (*settings, False, case.residual)
    torch.library.opcheck(torch.ops.sifa.inter_frame_attention_backward.default, (grad, *detached, *settings))


@pytest.mark.parametrize("case", CASES[:8], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fake_kernels_return_the_right_shapes_dtypes_and_strides(case: Case, dtype: torch.dtype) -> None:
    x, offset = case.inputs(dtype)
    settings = tuple(case.settings.values())
    real = (
        torch.ops.sifa.inter_frame_attention(x, offset, *settings),
        *torch.ops.sifa.inter_frame_attention_backward(x, x, offset, *settings),
    )
    meta_x, meta_offset = x.to("meta"), None if offset is None else offset.to("meta")
    fake = (
        torch.ops.sifa.inter_frame_attention(meta_x, meta_offset, *settings),
        *torch.ops.sifa.inter_frame_attention_backward(meta_x, meta_x, meta_offset, *settings),
    )
    for one, other in zip(real, fake, strict=True):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


def test_compiled_in_one_graph_with_one_recompilation(device: torch.device) -> None:
    """The backend captures the graphs of forward and backward and runs them, without code generation."""
    torch._dynamo.reset()
    compilations = 0

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        nonlocal compilations
        compilations += 1
        return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

    @torch.compile(backend=count, fullgraph=True)
    def function(x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return inter_frame_attention(x.relu(), offset * 2, kernel_size=3, residual=True).sigmoid()

    for shape in ((2, 4, 6, 5, 7), (3, 4, 6, 8, 9), (5, 4, 6, 9, 11), (4, 4, 6, 12, 6)):
        x, offset = Case(shape=shape).inputs(device=device)
        assert offset is not None
        x.requires_grad_()
        offset.requires_grad_()
        compiled = torch.autograd.grad(function(x, offset).sum(), [x, offset])
        plain = inter_frame_attention(x.relu(), offset * 2, residual=True).sigmoid()
        for one, other in zip(compiled, torch.autograd.grad(plain.sum(), [x, offset]), strict=True):
            assert relative_error(one, other) < 1e-12
    assert compilations <= 2


def test_the_result_may_be_changed_in_place(device: torch.device) -> None:
    """It is a tensor of its own, not a view: PyTorch refuses changes of a view that an autograd Function made."""
    x = torch.randn(2, 3, 8, 5, 6, device=device, requires_grad=True)
    offset = torch.randn(2, 2, 18, 5, 6, device=device, requires_grad=True)
    expected = torch.relu(inter_frame_attention(x, offset) + x)
    expected.sum().backward()
    wanted, x.grad = x.grad, None
    attended = inter_frame_attention(x, offset)
    assert not attended._is_view()
    attended += x
    torch.relu_(attended)
    assert torch.equal(attended, expected)
    attended.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, wanted)


@pytest.mark.slow
def test_inductor_at_several_sizes_in_training() -> None:
    """With what docs/troubleshooting.md names, an option that not every version has: without it PyTorch fails."""
    torch._dynamo.reset()
    attention = InterFrameAttention(8)
    torch.nn.init.normal_(attention.offset.weight, std=0.1)  # type: ignore[union-attr]
    known = hasattr(torch._inductor.config, "strict_output_strides")
    way: Any = {"options": {"strict_output_strides": True}} if known else {"dynamic": False}
    compiled = torch.compile(attention, **way)
    for height, width in ((6, 7), (8, 9), (5, 4)):
        x = torch.randn(2, 3, 8, height, width, requires_grad=True)
        result = compiled(x)
        result.sum().backward()
        torch.testing.assert_close(result, attention(x))
    torch._dynamo.reset()


@pytest.mark.parametrize("derive", [torch.func.jacfwd, lambda f: lambda x: torch.func.jvp(f, (x,), (x,))])
def test_forward_mode_is_refused_in_words(derive: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"forward mode AD \(jvp, jacfwd\): use jacrev"):
        derive(lambda x: inter_frame_attention(x).sum())(torch.randn(1, 2, 3, 4, 5))


def test_exported_with_a_dynamic_batch() -> None:
    class Attention(torch.nn.Module):
        def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
            return inter_frame_attention(x, offset)

    x, offset = Case().inputs()
    batch = torch.export.Dim("batch")
    program = torch.export.export(Attention(), (x, offset), dynamic_shapes={"x": {0: batch}, "offset": {0: batch}})
    x, offset = Case(shape=(5, 4, 6, 5, 7)).inputs(seed=1)
    assert offset is not None
    assert torch.equal(program.module()(x, offset), inter_frame_attention(x, offset))


def test_exported_for_two_frames_and_more() -> None:
    """As docs/troubleshooting.md says: two frames are one pair, and a size of 1 is a constant for PyTorch otherwise."""
    attention = InterFrameAttention(4).eval()
    torch.nn.init.normal_(attention.offset.weight)  # type: ignore[union-attr]
    times = ({1: torch.export.Dim("t", min=2)},)
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(attention, (torch.randn(2, 4, 4, 6, 7),), dynamic_shapes=times)
    for frames in (2, 3, 7):
        clip = torch.randn(2, frames, 4, 6, 7)
        torch.testing.assert_close(program.module()(clip), attention(clip))


def test_autocast_keeps_half_inputs(device: torch.device) -> None:
    x, offset = Case(shape=(1, 3, 16, 5, 6)).inputs(torch.bfloat16, device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert inter_frame_attention(x, offset).dtype == torch.bfloat16
        assert inter_frame_attention(x.float(), None).dtype == torch.float32


def test_gradient_checkpointing(device: torch.device) -> None:
    case = Case()
    x, offset = case.inputs(device=device)
    assert offset is not None
    expected = run_op(case, x, offset, torch.ones_like(x))
    x.requires_grad_()
    offset.requires_grad_()
    checkpoint(inter_frame_attention, x, offset, use_reentrant=False).sum().backward()
    assert is_same("grad_x", x.grad, expected["grad_x"])  # type: ignore[arg-type]
    assert is_same("grad_offset", offset.grad, expected["grad_offset"])  # type: ignore[arg-type]


def test_torch_func_gradient(device: torch.device) -> None:
    case = Case()
    x, offset = case.inputs(device=device)
    assert offset is not None
    expected = run_op(case, x, offset, torch.ones_like(x))
    function = torch.func.grad(lambda x, offset: inter_frame_attention(x, offset).sum(), argnums=(0, 1))
    for result, name in zip(function(x, offset), ("grad_x", "grad_offset"), strict=True):
        assert is_same(name, result, expected[name])


@pytest.mark.parametrize("in_dims", [(0, 0), (2, 1), (0, None), (None, 0)], ids=str)
def test_vmap_and_gradients_under_it(in_dims: tuple[int | None, int | None], device: torch.device) -> None:
    """vmap over calls and over their gradients equals separate calls."""
    cases = [Case().inputs(device=device, seed=seed) for seed in range(3)]

    def batch(index: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tensors = [case[index] for case in cases]
        if in_dims[index] is None:
            tensors = [tensors[0]] * 3
            return tensors[0], tensors  # type: ignore[return-value]
        return torch.stack(tensors, dim=in_dims[index]), tensors  # type: ignore[arg-type, return-value]

    (x, xs), (offset, offsets) = batch(0), batch(1)
    result = torch.func.vmap(inter_frame_attention, in_dims)(x, offset)
    for one, a, b in zip(result, xs, offsets, strict=True):
        assert torch.equal(one, inter_frame_attention(a, b))
    gradient = torch.func.grad(lambda x, offset: inter_frame_attention(x, offset).square().sum(), argnums=(0, 1))
    for both, a, b in zip(zip(*torch.func.vmap(gradient, in_dims)(x, offset), strict=True), xs, offsets, strict=True):
        for one, other in zip(both, gradient(a, b), strict=True):
            assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_vmap_without_offsets(device: torch.device) -> None:
    x = torch.randn(3, 2, 3, 4, 5, 6, dtype=torch.float64, device=device)
    result = torch.func.vmap(inter_frame_attention)(x)
    assert torch.equal(result, torch.stack([inter_frame_attention(one) for one in x]))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_of_the_bare_op_is_a_loop() -> None:
    x = torch.randn(2, 1, 2, 3, 4, 5)
    result = torch.func.vmap(lambda x: torch.ops.sifa.inter_frame_attention(x, None, 3, 1, 1))(x)
    assert torch.equal(result, torch.stack([inter_frame_attention(one) for one in x]))


def test_deterministic_algorithms_are_supported(device: torch.device) -> None:
    case = Case()
    x, offset = case.inputs(device=device)
    grad = torch.randn_like(x)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (run_op(case, x, offset, grad) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(before)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_kernel_is_told_whether_to_be_deterministic(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for callers of the bare operator. The CPU's result is the same; that on a GPU is not."""
    told = []

    def run(kernel: Any, *arguments: Any) -> Any:
        if kernel is torch.ops.sifa.inter_frame_attention_backward:
            told.append(arguments[6])
        return run_kernel(kernel, *arguments)

    run_kernel = ops.run_kernel
    monkeypatch.setattr(ops, "run_kernel", run)
    x = torch.randn(1, 3, 2, 4, 5, requires_grad=True)
    attended = inter_frame_attention(x)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        attended.sum().backward()
        torch.ops.sifa.inter_frame_attention_backward(x, x, None, 3, 1, 1)
    finally:
        torch.use_deterministic_algorithms(before)
    assert told == [deterministic, deterministic]


def test_a_compiled_graph_follows_the_deterministic_switch() -> None:
    told = []

    def forward_compiler(graph: torch.fx.GraphModule, inputs: list) -> Any:
        return make_boxed_func(graph)

    def backward_compiler(graph: torch.fx.GraphModule, inputs: list) -> Any:
        for node in graph.graph.nodes:
            if node.target == torch.ops.sifa.inter_frame_attention_backward.default:
                told.append(len(node.args) > 6 and node.args[6])
        return make_boxed_func(graph)

    backend = aot_autograd(fw_compiler=forward_compiler, bw_compiler=backward_compiler)
    attend = torch.compile(inter_frame_attention, backend=backend)
    x = torch.randn(1, 3, 2, 4, 5, requires_grad=True)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        for deterministic in (False, True, False, True):
            torch.use_deterministic_algorithms(deterministic)
            attend(x).sum().backward()
    finally:
        torch.use_deterministic_algorithms(before)
    assert told == [False, True]  # one graph for each state, used again later


def test_memory_that_is_not_there_is_named() -> None:
    shape = (1, 2, 2**20, 2**12, 2**12)
    message = f"cuda_sifa could not allocate a tensor of shape {shape} on cpu"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        inter_frame_attention(torch.zeros(1).expand(shape))


def test_a_full_gpu_is_an_out_of_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stable ABI has no such error: the kernel raises a RuntimeError, which calls.py knows by its text."""

    def kernel(*arguments: Any) -> None:
        raise RuntimeError(arguments[1])

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**20, 2**30))
    x = SimpleNamespace(device=torch.device("cuda", 0))
    message = "cuda_sifa could not allocate a tensor of shape (9,) on cuda:0"
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory\. .*\(9,\) on cuda:0: 3 MiB of 1024 MiB"):
        calls.run_kernel(kernel, x, message)
    with pytest.raises(RuntimeError, match="something else") as caught:
        calls.run_kernel(kernel, x, "something else")
    assert not isinstance(caught.value, torch.OutOfMemoryError)


def test_flops_are_counted() -> None:
    x, offset = Case(shape=(2, 4, 6, 5, 7), kernel_size=5).inputs()
    x.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        inter_frame_attention(x, offset, kernel_size=5).sum().backward()
    forward = 2 * 2 * (2 * 3 * 6 * 5 * 7) * 25  # two multiply-adds for each element of three pairs of frames and tap
    assert counter.get_total_flops() == 3 * forward
