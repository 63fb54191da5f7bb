"""The bytes that SIFA's block moves, without its offset convolution, in units of the clip's bytes.

Every operator that PyTorch runs counts each of its arguments as read once and each of its results as written once;
views and allocations move nothing. That is what kernels move which read their arguments from memory once, and find what
they read again in the cache.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cuda_sifa import inter_frame_attention
from models.sifa import InterFrameAttention

FREE = {"detach", "slice", "view", "_unsafe_view", "alias", "empty", "empty_like", "new_empty_strided", "as_strided"}
CONVOLUTION = {"convolution", "convolution_backward"}


class Traffic(TorchDispatchMode):
    """Counts bytes within `with Traffic() as traffic`."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.operators: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name not in FREE | CONVOLUTION:
            self.operators.append(name)
            self.bytes += sum(leaf.nbytes for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        return result


def buffers_of_attention(clip: Tensor, *, cached: bool) -> float:
    """What the CPU's gradient of attention moves inside, beyond its arguments and results, in bytes of the clip.

    A thread has buffers of one frame for all its pairs of frames: a copy of the keys, and two float32 sums, those of
    the keys and those of the queries. Each is written and read once if it stays in the cache, else for every pair: the
    copy is written and read; the sums of the keys are read and written, those of the queries read and cleared. All
    frames but two are in two pairs, so x is read again.

    Args:
        clip: (1, T, C, H, W), for one thread.
        cached: whether a buffer stays in the cache from one pair to the next.
    """
    frames = clip.shape[1]
    times = 1 if cached else frames - 1
    accesses = times * 2 * (1 + 2 * 4 / clip.element_size())
    return (accesses + frames - 2) / frames


def block(dtype: torch.dtype) -> tuple[InterFrameAttention, Tensor, Tensor]:
    """The module of SIFA-Net's res3, a clip, and a gradient, with channels innermost."""
    module = InterFrameAttention(128).to(dtype).to(memory_format=torch.channels_last)
    clip, grad = torch.randn(2, 1, 4, 6, 7, 128).to(dtype).permute(0, 1, 2, 5, 3, 4)
    return module, clip.requires_grad_(), grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bytes_moved(dtype: torch.dtype) -> None:
    module, clip, grad = block(dtype)
    with Traffic() as forward:
        result = module(clip, residual=True)
    with Traffic() as backward:
        result.backward(grad)
    assert forward.operators == ["motion_saliency", "inter_frame_attention"]
    assert forward.bytes / clip.nbytes < 4.1  # three quarters are the saliency of four frames
    assert backward.bytes / clip.nbytes < 9.1
    inside = buffers_of_attention(clip, cached=True)
    assert backward.bytes / clip.nbytes + inside < 12.1
    assert buffers_of_attention(clip, cached=False) == {torch.float32: 5, torch.bfloat16: 8}[dtype]


def test_memory_of_the_gradient_of_attention() -> None:
    """It allocates no tensor but its results: the buffers are no larger than frames."""
    clip, grad = torch.zeros(2, 1, 16, 15, 14, 16, dtype=torch.bfloat16).permute(0, 1, 2, 5, 3, 4)
    with profile(profile_memory=True) as profiled:
        torch.ops.sifa.inter_frame_attention_backward(grad, clip, None, 3, 1, 1)
    assert sum(max(event.self_cpu_memory_usage, 0) for event in profiled.events()) < 1.1 * clip.nbytes


def test_bytes_moved_by_plain_pytorch() -> None:
    """The count finds what it is to find."""
    module, clip, grad = block(torch.float32)
    assert module.offset is not None
    with Traffic() as forward:
        frame, following = clip[:, :-1], clip[:, 1:]
        saliency = torch.sigmoid(following - frame) * following + following
        offset = module.offset(saliency.flatten(0, 1)).unflatten(0, (1, 3))
        result = clip + inter_frame_attention(clip, offset)
    with Traffic() as backward:
        result.backward(grad)
    assert 13 < forward.bytes / clip.nbytes < 14
    assert 28 < backward.bytes / clip.nbytes < 29
