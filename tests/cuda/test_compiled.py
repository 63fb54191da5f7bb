"""The compiled kernels, without a GPU: the tests of test_emulated.py, run on the PTX that nvcc writes.

The interpreter in ptx/ ends a run that touches memory outside a buffer, at an odd address or before anything was
written there, uses an undefined register, or has two threads touch a byte with no barrier between them. Needs nvcc and
g++. SIFA_LONG_TESTS=1 compiles float16 and float64 too, and runs all tests.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cuda_sifa import toolkit
from tests.cuda.compiled import COUNTS, build_interpreter, compile_kernels, compiler_version, count
from tests.cuda.emulator import Call, Emulator, Program
from tests.cuda.test_emulated import *  # noqa: F403
from tests.op.cases import Case

DTYPES = [torch.float32, torch.bfloat16]
if os.environ.get("SIFA_LONG_TESTS") == "1":
    DTYPES += [torch.float16, torch.float64]
else:
    del test_half_precision_is_as_accurate_as_plain_pytorch  # noqa: F821  (the longest one)


@pytest.fixture(scope="session")
def home() -> Path:
    home = toolkit.find_toolkit()
    if home is None:
        pytest.skip("there is no CUDA compiler")
    return home


@pytest.fixture(scope="session")
def interpreter(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_interpreter(tmp_path_factory.mktemp("ptx"))


@pytest.fixture(name="emulate")
def _emulate(interpreter: Path, home: Path, tmp_path: Path) -> Emulator:
    def emulate(calls: list[Call]) -> list[dict[str, Tensor]]:
        dtypes = {call.x.dtype for call in calls}
        if not dtypes <= set(DTYPES):
            pytest.skip(f"{dtypes} are compiled with SIFA_LONG_TESTS=1 only")
        return Program([str(interpreter)], tmp_path, [str(compile_kernels(dtype, home)) for dtype in dtypes])(calls)

    return emulate


def test_no_kernel_executes_more_than_before(interpreter: Path, home: Path, tmp_path: Path) -> None:
    """Or less: the file of the counts belongs to a change of a kernel, and shows what it costs."""
    header, *expected = re.split(r"\n(?!#)", COUNTS.read_text().strip())
    if compiler_version(home) not in header:
        pytest.skip(f"the counts are not of {compiler_version(home)}: they were made with another compiler")
    ptx = [str(compile_kernels(dtype, home)) for dtype in DTYPES[:2]]
    found = count(Program([str(interpreter)], tmp_path, ptx), DTYPES[:2])
    assert found == expected, "if the change is meant: python -m tests.cuda.compiled"


# ---- The interpreter itself: faults that are put into the PTX -------------------------------------------------------


@pytest.fixture(scope="session")
def kernels(home: Path) -> list[str]:
    """The PTX of the two kernels that `faulty` runs."""
    head, *entries = compile_kernels(torch.float32, home).read_text().split(".visible .entry ")
    names = ["14forward_kernelIfLi3ELi8ELi1ELb0EE", "21tiled_backward_kernelIfLi3ELi8ELi1EE"]
    return [head + ".visible .entry " + next(entry for entry in entries if name in entry[:99]) for name in names]


@pytest.fixture
def faulty(interpreter: Path, tmp_path: Path) -> Callable[[list[str]], str]:
    """Runs changed kernels, and returns what the interpreter says. Several tiles for a block, and two heads."""

    def faulty(kernels: list[str]) -> str:
        (tmp_path / "faulty.ptx").write_text("\n".join(kernels))
        call = Call.of(Case(shape=(1, 3, 16, 9, 17), groups=2, offset=1.0), max_blocks=1)
        return Program([str(interpreter)], tmp_path, [str(tmp_path / "faulty.ptx")]).run([call]).stderr

    return faulty


def test_the_kernels_without_a_fault(kernels: list[str], faulty: Callable[[list[str]], str]) -> None:
    assert faulty(kernels) == ""


def test_a_missing_barrier_is_found(kernels: list[str], faulty: Callable[[list[str]], str]) -> None:
    for number, kernel in enumerate(kernels):
        barriers = [found.span() for found in re.finditer(r"bar\.sync\s+0;", kernel)]
        assert len(barriers) == (2, 6)[number]
        for begin, end in barriers:
            changed = [*kernels[:number], kernel[:begin] + kernel[end:], *kernels[number + 1 :]]
            said = faulty(changed)
            assert "race: " in said or "nothing has written" in said, kernel[:begin].count("\n")


@pytest.mark.parametrize(
    ("kernel", "pattern", "replacement", "message"),
    [
        (0, r"(st\.global\.v4\.f32\s+\[%rd\d+)\]", r"\1+4]", "is no multiple of 16"),
        (0, r"(ld\.global\.nc\.v4\.f32\s+\{.*?\}, \[%rd\d+)\]", r"\1+-16]", "outside every buffer"),
        (0, r"(st\.shared\.v2\.f32\s+\[%r\d+)\+\d+\]", r"\1+40000]", "of the shared memory"),
        (0, r"st\.shared\.v2\.f32.*", "", "nothing has written in the shared memory"),
        (1, r"atom\.global\.add\.v4\.f32\s+\{.*?\}, (\[.*?\], \{.*?\})", r"st.global.v4.f32 \1", "race: "),
    ],
)
def test_a_fault_is_found(
    kernel: int,
    pattern: str,
    replacement: str,
    message: str,
    kernels: list[str],
    faulty: Callable[[list[str]], str],
) -> None:
    changed = list(kernels)
    changed[kernel], count = re.subn(pattern, replacement, kernels[kernel])
    assert count > 0
    assert message in faulty(changed)
