"""How Python calls the compiled kernels: below autograd, under torch.func and vmap, and without gradients."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.overrides import has_torch_function

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def with_signature(function: AnyFunction) -> AnyFunction:
    """Keeps the signature of a Function's forward, which `apply` asks for in every call: 60 microseconds otherwise."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


def inside_torch_func() -> bool:
    """Whether torch.func transforms this call. It needs the Function itself, not an op that applies it inside."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def needs_no_gradient(*tensors: Tensor | None) -> bool:
    """Whether the autograd Function of an op has nothing to do.

    Skipping it saves 20 to 90 microseconds of a call, as much as the CPU needs for a small map. False if it cannot be
    known: while tracing, for forward-mode derivatives, and for a subclass or a mode that may have its own gradient.
    """
    if torch.compiler.is_compiling() or forward_ad._current_level >= 0 or has_torch_function(tensors):
        return False
    return not (torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors))


def call_for_gradient(op: Callable[..., Any], function: type[Function], *tensors: Tensor | None) -> Callable[..., Any]:
    """What computes a gradient: the Function under torch.func, its forward if no second gradient is needed, else op.

    Args:
        op: of the gradient, which applies `function` inside.
        tensors: the arguments that may need a gradient themselves.
    """
    if inside_torch_func():
        return function.apply
    return function.forward if needs_no_gradient(*tensors) else op


def channels_innermost(like: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """An empty tensor of the dtype of `like`, and of its shape or of another, in the memory layout of the results."""
    shape = like.shape if shape is None else shape
    _, t, c, h, w = shape
    return like.new_empty_strided(shape, (t * h * w * c, h * w * c, 1, w * c, c))


def run_kernel(kernel: Any, *arguments: Any) -> Any:
    """Calls a kernel of the compiled library, below autograd.

    Raises:
        torch.OutOfMemoryError: the memory of the GPU is full. The kernel cannot raise it itself: through the stable ABI
            every failed allocation is a RuntimeError.
    """
    try:
        with torch._C._AutoDispatchBelowAutograd():
            return kernel(*arguments)
    except RuntimeError as error:
        device = arguments[0].device
        if device.type != "cuda" or "could not allocate a tensor" not in str(error):
            raise
        free, total = torch.cuda.mem_get_info(device)  # raises the true error if an earlier kernel has failed
        raise torch.OutOfMemoryError(
            f"CUDA out of memory. {error}: {free / 2**20:.0f} MiB of {total / 2**20:.0f} MiB are free outside PyTorch"
        ) from None


def fold_batches(size: int, dims: tuple, *tensors: Tensor | None) -> list[Any]:
    """Merges the dimension of vmap into N. A tensor without that dimension is repeated for every entry."""
    folded: list[Any] = []
    for tensor, dim in zip(tensors, dims, strict=False):  # dims has entries for the settings too
        if tensor is not None:
            tensor = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            tensor = tensor.flatten(0, 1)
        folded.append(tensor)
    return folded
