"""The emulated kernels in other builds: with the thread sanitizer, for older GPUs, with fused multiply-add.

Minutes of compilation, so they run with SIFA_LONG_TESTS=1 only.
"""

import os
import platform
import shutil
from pathlib import Path

import pytest

from tests.cuda.emulator import CUDA_SOURCES, SANITIZED, Call, Program, assert_equal, build
from tests.cuda.test_emulated import CHANNELS, HEADS, REGULAR, SHAPES, WHOLE
from tests.op.cases import Case

pytestmark = pytest.mark.skipif(os.environ.get("SIFA_LONG_TESTS") != "1", reason="only with SIFA_LONG_TESTS=1")
RACES = ["-O1", "-g1", "-fsanitize=thread"]


def calls_for_races() -> list[Call]:
    """Each kernel, each with several tiles for a block and several heads."""
    shape = (1, 3, 16, 9, 17)
    cases = [Case(shape=shape, groups=2, offset=1.0, kernel_size=k) for k in (1, 3, 5)]
    cases += [Case(shape=(1, 3, 6, 5, 7)), Case(shape=shape, groups=2, offset=None)]
    return [Call.of(case, max_blocks=2, deterministic=flag) for case in cases for flag in (False, True)]


def watched_by_the_thread_sanitizer(folder: Path, *options: str) -> Program:
    if not shutil.which("setarch"):
        pytest.skip("there is no setarch: the thread sanitizer needs addresses that are not random")
    program = build(folder / "program", *RACES, *options)
    return Program(["setarch", "-R", str(program)], folder)


def test_threads_of_a_block_race_nowhere(tmp_path: Path) -> None:
    """Blocks run one after the other here; test_compiled.py finds races between them."""
    calls = calls_for_races()
    assert_equal(watched_by_the_thread_sanitizer(tmp_path), calls)


def test_the_thread_sanitizer_finds_a_missing_barrier(tmp_path: Path) -> None:
    changed = Path(shutil.copytree(CUDA_SOURCES, tmp_path / "sources")) / "tiled_backward.cuh"
    before, after = changed.read_text().split("      tile.weigh_taps();\n      __syncthreads();\n")
    changed.write_text(f"{before}      tile.weigh_taps();\n{after}")
    done = watched_by_the_thread_sanitizer(tmp_path, f"-I{changed.parent}").run(calls_for_races()[2:3])
    assert done.returncode != 0
    assert "data race" in done.stderr


def test_the_branch_below_compute_capability_9(tmp_path: Path) -> None:
    """Without additions of four floats at once."""
    program = Program([str(build(tmp_path / "program", *SANITIZED, "-D__CUDA_ARCH__=800"))], tmp_path)
    assert_equal(program, [Call.of(case) for case in WHOLE + CHANNELS])


def test_fused_multiply_add(tmp_path: Path) -> None:
    """nvcc contracts products and sums to one operation, which rounds once. g++ does not by default."""
    cpu = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not cpu.exists() or " fma " not in cpu.read_text():
        pytest.skip("the processor has no fused multiply-add")
    program = Program([str(build(tmp_path / "program", "-O1", "-mfma", "-ffp-contract=fast"))], tmp_path)
    assert_equal(program, [Call.of(case) for case in SHAPES + WHOLE + CHANNELS + HEADS + REGULAR])
