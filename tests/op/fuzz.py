"""Random calls of the ops, valid and invalid: the result equals that of the reference, or both raise an exception.

`bash make.sh fuzz` runs ten thousand of them on a library built with AddressSanitizer and UndefinedBehaviourSanitizer.
test_fuzz.py lets hypothesis find the smallest call that fails.
"""

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

import cuda_sifa
from cuda_sifa import reference

V = TypeVar("V")
Choose = Callable[[Sequence[V]], V]  # selects one of several values

DTYPES = (torch.float64, torch.float64, torch.float32, torch.float16, torch.bfloat16)
WRONG_DTYPES = (torch.int64, torch.complex64, torch.bool)
# For the rounding of the result to its dtype, and for sums in float32 in another order.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
REJECTED = (ValueError, RuntimeError, TypeError, NotImplementedError)


def draw_call(choose: Choose) -> dict[str, Any]:
    """Arguments of inter_frame_attention, mostly valid. The motion saliency takes x alone."""
    groups = choose((1, 1, 2, 3))
    shape = [
        choose((0, 1, 1, 2, 3)),
        choose((0, 1, 2, 2, 3, 4)),
        groups * choose((0, 1, 2, 3, 5, 8, 16, 21)),
        choose((0, 1, 2, 5, 9)),
        choose((0, 1, 3, 7, 20)),
    ]
    kernel_size = choose((1, 3, 3, 3, 5, 7))
    dtype = choose(DTYPES)
    x = strided(torch.randn(shape, dtype=torch.float64).to(dtype), choose)
    call = {"x": x, "offset": None, "kernel_size": kernel_size, "dilation": choose((1, 1, 2, 7)), "groups": groups}
    call["residual"] = choose((True, False))
    if choose((True, True, False)):
        field = [shape[0], max(shape[1] - 1, 0), 2 * kernel_size**2, *shape[3:]]
        offset = torch.randn(field, dtype=torch.float64) * choose((0.0, 0.3, 1.0, 5.0, 100.0))
        if choose((True, False)):
            # Not near integers, where the derivative jumps and rounding decides which side is taken.
            offset = offset.floor() + 0.1 + 0.8 * torch.rand(field, dtype=torch.float64)
        elif choose((True, False)):
            offset = offset.round()
        for value in choose(((), (), (math.nan,), (math.inf, -math.inf), (1e300, -1e38))):
            if offset.numel():
                offset.flatten()[choose(range(offset.numel()))] = value
        half = dtype in (torch.float16, torch.bfloat16)
        call["offset"] = strided(offset.to(torch.float32 if half and choose((True, False)) else dtype), choose)
    if choose((True, False, False, False)):
        make_wrong(call, choose)
    return call


def strided(tensor: Tensor, choose: Choose) -> Tensor:
    """The same shape in one of many layouts. Expanded tensors repeat the values of their first entry."""
    layout = choose(("dense", "permuted", "slice", "expanded", "channels innermost", "flipped order"))
    if layout == "permuted":
        order = list(range(tensor.dim()))
        order = order[2:] + order[:2]
        return tensor.permute(order).contiguous().permute([order.index(i) for i in range(tensor.dim())])
    if layout == "slice" and tensor.dim():
        wide = torch.cat([tensor, torch.full_like(tensor, 7)], dim=-1)
        return wide[..., : tensor.shape[-1]]
    if layout == "expanded" and tensor.dim() and tensor.shape[0]:
        return tensor[:1].expand(tensor.shape)
    if layout == "channels innermost" and tensor.dim() == 5:
        return tensor.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    if layout == "flipped order" and tensor.dim():
        order = list(range(tensor.dim()))[::-1]
        return tensor.permute(order).contiguous().permute(order)
    return tensor


def make_wrong(call: dict[str, Any], choose: Choose) -> None:
    """Makes one argument wrong, or sometimes still right."""
    what = choose(("kernel_size", "dilation", "groups", "x", "offset", "dims", "dtype", "device"))
    if what in ("kernel_size", "dilation", "groups"):
        call[what] = choose((-1, 0, 2, 4, 10, 2**31, 2**62, -(2**62), 257))
    elif what == "x":
        call["x"] = call["x"].transpose(choose(range(5)), choose(range(5)))
    elif what == "offset":
        n, t, _, h, w = call["x"].shape
        call["offset"] = torch.zeros(n, t, choose((2, 9, 18)), h, w + choose((0, 1)))
    elif what == "dims":
        call["x"] = call["x"].unsqueeze(0) if choose((True, False)) else call["x"].flatten(2)
    elif what == "dtype":
        call["x"] = call["x"].to(choose(WRONG_DTYPES))
    else:
        call["x"] = call["x"].to("meta")


def _saliency(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return cuda_sifa.motion_saliency(x)


def _plain_saliency(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return reference.motion_saliency(x)


def outcome(function: Callable, call: dict[str, Any], needs: tuple[bool, bool], grad: Tensor) -> Any:
    """The result and the gradients, or the exception."""
    x, offset = call["x"], call["offset"]
    try:
        leaves = []
        if needs[0]:
            x = x.detach().requires_grad_()
            leaves.append(x)
        if needs[1] and offset is not None:
            offset = offset.detach().requires_grad_()
            leaves.append(offset)
        settings = call["kernel_size"], call["dilation"], call["groups"]
        result = function(x, offset, *settings, residual=call["residual"])
        grads = torch.autograd.grad(result, leaves, grad.expand(result.shape).to(result.dtype)) if leaves else ()
        return [result.detach(), *grads]
    except REJECTED as error:
        return error


def check(choose: Choose) -> str:
    """Makes one call.

    Returns:
        How it ended.

    Raises:
        AssertionError: op and reference differ.
    """
    call = draw_call(choose)
    needs = choose((True, False)), choose((True, False))
    grad = torch.randn((), dtype=torch.float64) if choose((True, False)) else torch.ones((), dtype=torch.float64)
    grad = grad.to(call["x"].device)
    op: Callable = cuda_sifa.inter_frame_attention
    plain: Callable = reference.inter_frame_attention
    if choose((True, False, False)):
        op, plain = _saliency, _plain_saliency
        call["offset"] = None
    result = outcome(op, call, needs, grad)
    expected = outcome(plain, call, needs, grad)
    if isinstance(result, Exception) or isinstance(expected, Exception):
        assert isinstance(result, Exception), f"only the reference raises: {expected}"
        assert isinstance(expected, Exception), f"only the op raises: {result}"
        return f"rejected ({type(result).__name__})"
    for one, other in zip(result, expected, strict=True):
        assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
        if one.device.type == "meta":
            continue
        # Relative to the largest value, or to 1 if all are smaller.
        error = (one.double() - other.double()).abs().max() if one.numel() else torch.zeros(())
        scale = other.double().abs().max().clamp_min(1.0) if one.numel() else torch.ones(())
        assert error <= TOLERANCE[one.dtype] * scale, f"{error} of {scale} in {one.dtype}"
    return "equal"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if "cpu" not in cuda_sifa.library.devices:
        print("error: the op is not built", file=sys.stderr)
        return 2
    ends: Counter[str] = Counter()
    for seed in range(args.seed, args.seed + args.calls):
        torch.manual_seed(seed)
        try:
            ends[check(random.Random(seed).choice)] += 1
        except AssertionError as error:
            print(f"error: the call of --seed {seed} --calls 1 fails: {error}", file=sys.stderr)
            return 1
    print(f"{args.calls} calls of {cuda_sifa.library.__file__}: {dict(ends)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
