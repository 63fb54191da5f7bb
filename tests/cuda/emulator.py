"""Runs the CUDA kernels without a GPU: their C++ or their PTX, executed on the CPU by the program of emulated.cpp."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cuda_sifa import reference
from tests.op.cases import Case, relative_error, run, run_saliency

HERE = Path(__file__).parent
CUDA_SOURCES = HERE.parents[1] / "cuda_sifa" / "csrc" / "cuda"
NAMES = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
ACCUMULATORS = {torch.float64: torch.float64}  # float32 for all other dtypes
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}  # as for the CPU op: a few hundred roundings
SANITIZED = ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

Emulator = Callable[["list[Call]"], "list[dict[str, Tensor]]"]


@dataclass
class Call:
    """One call of the op and of its gradient."""

    x: Tensor  # (N, T, C, H, W)
    offset: Tensor | None
    grad: Tensor
    kernel_size: int = 3
    dilation: int = 1
    groups: int = 1
    shift: int = 0  # elements by which x lies off an aligned address
    multiprocessors: int = 2  # of the emulated GPU: they determine the size of the tiles
    order: int = 0  # of the threads between two barriers: 0 ascending, 1 descending, 2 random
    max_blocks: int = 2**31 - 1  # of a grid: a block continues if there are more tiles
    deterministic: bool = False
    residual: bool = False
    saliency: bool = False  # the motion saliency of x instead of attention

    @classmethod
    def of(cls, case: Case, dtype: torch.dtype = torch.float32, **settings: int) -> "Call":
        x, offset = case.inputs(dtype)
        settings = case.settings | settings | {"residual": case.residual}
        return cls(x, offset, torch.randn_like(x), **settings)  # type: ignore[arg-type]

    @classmethod
    def of_saliency(cls, *shape: int, dtype: torch.dtype = torch.float32, **settings: int) -> "Call":
        x = torch.randn(shape, dtype=torch.float64).to(dtype)
        return cls(x, None, torch.randn_like(x[:, 1:]), saliency=True, **settings)  # type: ignore[arg-type]

    def expected(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The results of the reference, computed in `dtype`."""
        case = Case((), self.kernel_size, self.dilation, self.groups, residual=self.residual)  # type: ignore[arg-type]
        inputs = self.x, self.offset, self.grad
        if dtype:
            inputs = self.x.to(dtype), None if self.offset is None else self.offset.to(dtype), self.grad.to(dtype)
        x, offset, grad = inputs
        if self.saliency:
            return run_saliency(reference.motion_saliency, x, grad)
        return run(reference.inter_frame_attention, case, x, offset, grad)


def write(tensor: Tensor, path: Path) -> None:
    path.write_bytes(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())


def read(path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    stored = bytearray(path.read_bytes())
    return (torch.frombuffer(stored, dtype=dtype) if stored else torch.empty(0, dtype=dtype)).view(shape)


def memory_of(tensor: Tensor) -> Tensor:
    """The memory from the first to the last element of a strided tensor, NaN between its elements."""
    size = 1 + sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.stride(), strict=True))
    memory = torch.full((size,), float("nan"), dtype=tensor.dtype)
    places = torch.arange(size).as_strided(tensor.shape, tensor.stride())
    memory[places.flatten()] = tensor.flatten()  # elements with stride 0 are written several times
    return memory


def find_compiler() -> str:
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        pytest.skip(f"no C++ compiler ({compiler})")
    return compiler


def build(path: Path, *options: str, sources: Sequence[Path] = (HERE / "emulated.cpp",)) -> Path:
    """Compiles the program of emulated.cpp."""
    command = [
        *(find_compiler(), "-std=c++20", "-Wall", "-Werror", "-Wno-unknown-pragmas", *options),
        *(f"-I{HERE / 'emulation'}", f"-I{CUDA_SOURCES}", *map(str, sources), "-o", str(path)),
    ]
    subprocess.run(command, check=True)
    return path


@dataclass(frozen=True)
class Program:
    """A program that runs calls, and the folder for their arrays."""

    command: Sequence[str]  # it gets the folder as its first argument
    folder: Path
    arguments: Sequence[str] = ()

    def __call__(self, calls: list[Call]) -> list[dict[str, Tensor]]:
        done = self.run(calls)
        assert done.returncode == 0, done.stderr[-4000:]
        return [self.results(i, call) for i, call in enumerate(calls)]

    def run(self, calls: list[Call]) -> subprocess.CompletedProcess[str]:
        lines = []
        for i, call in enumerate(calls):
            write(call.x.permute(0, 1, 3, 4, 2), self.folder / f"{i}.x")
            write(call.grad.permute(0, 1, 3, 4, 2), self.folder / f"{i}.grad")
            strides: tuple[int, ...] = (0,) * 5
            kind = "saliency" if call.saliency else "none"
            if call.offset is not None:
                strides, kind = call.offset.stride(), NAMES[call.offset.dtype]
                write(memory_of(call.offset), self.folder / f"{i}.offset")
            sizes = (*call.x.shape, call.kernel_size, call.dilation, call.groups, *strides, call.shift)
            words = (
                *sizes,
                call.multiprocessors,
                call.order,
                call.max_blocks,
                int(call.deterministic),
                int(call.residual),
            )
            lines.append(" ".join(map(str, (i, NAMES[call.x.dtype], kind, *words))))
        (self.folder / "cases.txt").write_text("\n".join(lines) + "\n")
        # Without the leak check: it needs rights that a container may not have.
        environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}
        command = [*self.command, str(self.folder), *self.arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def results(self, i: int, call: Call) -> dict[str, Tensor]:
        n, t, c, h, w = call.x.shape
        dtype = call.x.dtype
        accumulator = dtype if call.offset is None else ACCUMULATORS.get(dtype, torch.float32)
        name, frames = ("saliency", t - 1) if call.saliency else ("attended", t)
        found = {name: read(self.folder / f"{i}.out", dtype, (n, frames, h, w, c)).permute(0, 1, 4, 2, 3)}
        grad_x = read(self.folder / f"{i}.grad_x", accumulator, (n, t, h, w, c))
        found["grad_x"] = grad_x.permute(0, 1, 4, 2, 3).to(dtype)
        if call.offset is not None:
            field = (n, t - 1, h, w, 2 * call.kernel_size**2)
            grad_offset = read(self.folder / f"{i}.grad_offset", call.offset.dtype, field)
            found["grad_offset"] = grad_offset.permute(0, 1, 4, 2, 3)
        return found


def assert_equal(emulate: Emulator, calls: list[Call], tolerance: float | None = None) -> None:
    for call, found in zip(calls, emulate(calls), strict=True):
        for name, expected in call.expected().items():
            assert found[name].dtype == expected.dtype
            error = relative_error(found[name], expected)  # NaN, where nothing was written, is not less
            assert error < (tolerance or TOLERANCE[call.x.dtype]), f"{name} of {call}"
