"""Inputs for the tests of the op, and how results are compared."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cuda_sifa import inter_frame_attention, reference


@dataclass(frozen=True)
class Case:
    """One call. Every axis has another size, so a test fails if code confuses two axes."""

    shape: tuple[int, int, int, int, int] = (2, 4, 6, 5, 7)  # N, T, C, H, W
    kernel_size: int = 3
    dilation: int = 1
    groups: int = 1
    offset: float | None = 1.5  # standard deviation in pixels; None: the regular neighbourhood
    residual: bool = False

    def __str__(self) -> str:
        n, t, c, h, w = self.shape
        name = f"{n}x{t}x{c}x{h}x{w}-k{self.kernel_size}-d{self.dilation}-g{self.groups}-offset{self.offset}"
        return name + "-residual" * self.residual

    @property
    def settings(self) -> dict[str, Any]:
        return {"kernel_size": self.kernel_size, "dilation": self.dilation, "groups": self.groups}

    def inputs(
        self, dtype: torch.dtype = torch.float64, device: Any = "cpu", seed: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """x and offset. No offset is within 0.1 of an integer, where the derivative jumps."""
        generator = torch.Generator().manual_seed(seed)
        n, t, _c, h, w = self.shape
        x = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        if self.offset is None:
            return x.to(device, dtype), None
        field = (n, max(t - 1, 0), 2 * self.kernel_size**2, h, w)
        whole = (torch.randn(field, generator=generator, dtype=torch.float64) * self.offset).round()
        fraction = 0.1 + 0.8 * torch.rand(field, generator=generator, dtype=torch.float64)
        return x.to(device, dtype), (whole + fraction).to(device, dtype)


CASES = [
    Case(),
    Case(offset=None),
    Case(kernel_size=1),
    Case(kernel_size=1, offset=None),
    Case(kernel_size=5),
    Case(kernel_size=7, shape=(1, 2, 3, 9, 4)),
    Case(kernel_size=7, shape=(1, 2, 3, 9, 4), offset=None),
    Case(kernel_size=9, shape=(1, 2, 2, 3, 4)),
    Case(dilation=2),
    Case(dilation=3, offset=None),
    Case(dilation=40),  # every tap but the centre outside
    Case(groups=2),
    Case(groups=6, kernel_size=5, dilation=2),
    Case(groups=3, offset=None),
    Case(offset=0.2),
    Case(offset=20.0),  # most samples outside
    Case(shape=(1, 2, 1, 1, 1)),
    Case(shape=(1, 2, 5, 1, 6)),
    Case(shape=(3, 2, 5, 6, 1)),
    Case(shape=(1, 3, 4, 2, 90), offset=15.0),  # taps farther apart than the window in which the kernel merges pixels
    Case(shape=(1, 2, 4, 80, 3), offset=15.0, dilation=7),
    Case(shape=(1, 2, 5, 14, 13), offset=4.0),  # within that window
    # Several blocks of positions in a row, and several rows in a block.
    Case(shape=(1, 2, 32, 3, 37)),
    Case(shape=(1, 2, 5, 3, 37), kernel_size=5),
    Case(shape=(1, 2, 32, 2, 3), kernel_size=13),
    # Channels: whole vectors, blocks of vectors, remainders.
    *(Case(shape=(1, 2, c, 3, 4)) for c in (1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 48, 64, 71, 96, 128, 130, 144, 257)),
    Case(shape=(1, 2, 140, 3, 4), groups=4),
    # Heads of whole vectors, in rows of several blocks.
    Case(shape=(1, 2, 64, 3, 20), groups=2),
    Case(shape=(1, 2, 66, 3, 4), offset=None, groups=2),
    # Heads of few channels, of many, and of so many that they are computed in chunks; the last frame of odd and even.
    Case(residual=True),
    Case(residual=True, offset=None, shape=(2, 3, 37, 4, 5)),
    Case(residual=True, groups=2, shape=(1, 3, 64, 3, 20)),
    Case(residual=True, shape=(1, 2, 144, 3, 4)),
    Case(residual=True, shape=(1, 3, 1040, 2, 3)),
]


def run(function: Any, case: Case, x: Tensor, offset: Tensor | None, grad: Tensor) -> dict[str, Tensor]:
    """The result and the gradients of `function`, the op or its reference."""
    x = x.detach().requires_grad_()
    offset = None if offset is None else offset.detach().requires_grad_()
    options = {"residual": True} if case.residual else {}
    result = function(x, offset, **case.settings, **options)
    inputs = [x] if offset is None else [x, offset]
    grads = torch.autograd.grad(result, inputs, grad)
    return {
        "attended": result.detach(),
        "grad_x": grads[0],
        **({"grad_offset": grads[1]} if offset is not None else {}),
    }


def run_op(case: Case, x: Tensor, offset: Tensor | None, grad: Tensor) -> dict[str, Tensor]:
    return run(inter_frame_attention, case, x, offset, grad)


def run_reference(case: Case, x: Tensor, offset: Tensor | None, grad: Tensor) -> dict[str, Tensor]:
    return run(reference.inter_frame_attention, case, x, offset, grad)


def run_saliency(function: Any, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """The result and the gradient of `function`, the motion saliency or its reference."""
    x = x.detach().requires_grad_()
    result = function(x)
    (grad_x,) = torch.autograd.grad(result, x, grad)
    return {"saliency": result.detach(), "grad_x": grad_x}


def finite_where_reference_is_not(case: Case, dtype: torch.dtype, seed: int) -> list[str]:
    """Puts a few infinities and NaN into x and the incoming gradient, between zeros and whole offsets.

    Returns:
        The results with a value that is not finite in the reference, but finite in the op.
    """
    generator = torch.Generator().manual_seed(seed)
    x, offset = case.inputs(dtype, seed=seed)
    grad = torch.randn(x.shape, generator=generator).to(dtype)
    if offset is not None:
        offset = torch.where(torch.rand(offset.shape, generator=generator) < 0.5, offset.round(), offset)
    for values, count in ((x, seed % 3 + 1), (grad, seed % 2)):
        values[torch.rand(values.shape, generator=generator) < 0.2] = 0
        for value in (torch.inf, -torch.inf, torch.nan)[:count]:
            values.view(-1)[torch.randint(values.numel(), (1,), generator=generator)] = value
    expected = run_reference(case, x, offset, grad)
    return [
        name
        for name, result in run_op(case, x, offset, grad).items()
        if (result.isfinite() & ~expected[name].isfinite()).any()
    ]


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same values with other strides."""
    n, t, c, h, w = x.shape
    padded = torch.full((n, t + 1, c + 2, h + 1, w + 3), math.nan, dtype=x.dtype, device=x.device)
    padded[:, 1:, 1:-1, 1:, 2:-1] = x
    return {
        "channels first": x.contiguous(),
        "channels innermost": x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
        "time innermost": x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
        "the release's (N, C, T, H, W)": x.transpose(1, 2).contiguous().transpose(1, 2),
        "a slice of a larger tensor": padded[:, 1:, 1:-1, 1:, 2:-1],
        "every second element": x.repeat_interleave(2, dim=4)[..., ::2],
    }


def with_threads(counts: tuple[int, ...], run: Callable[[], Any]) -> list[Any]:
    """The results of `run` with each number of threads."""
    threads = torch.get_num_threads()
    try:
        results = []
        for count in counts:
            torch.set_num_threads(count)
            results.append(run())
        return results
    finally:
        torch.set_num_threads(threads)


def is_same(name: str, result: Tensor, expected: Tensor) -> bool:
    """Whether all bits are equal. On a GPU the gradients of a key are added in no fixed order: almost equal."""
    if name == "grad_x" and result.device.type == "cuda":
        return relative_error(result, expected) < 8 * torch.finfo(result.dtype).eps
    return torch.equal(result, expected)


def relative_error(result: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    assert result.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    scale = expected.abs().max().clamp_min(1e-30)
    return ((result.double() - expected.double()).abs().max() / scale.double()).item()
