"""The kernels as nvcc compiles them, executed by the interpreter in ptx/. Needs nvcc and g++, no GPU.

python -m tests.cuda.compiled     writes what they execute per position to compiled_counts.txt
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.resources import readable
from cuda_sifa import toolkit
from tests.cuda.emulator import CUDA_SOURCES, HERE, Call, Program, build
from tests.op.cases import Case

COUNTS = HERE / "compiled_counts.txt"
ARCHITECTURE = "compute_90"
FILES = {torch.float32: "float", torch.bfloat16: "bfloat16", torch.float16: "half", torch.float64: "double"}
# Shapes of the networks: res3, res4, res5 and the last stage of SIFA-Transformer. T = 2: one pair of frames.
SHAPES = [(1, 2, 128, 28, 28), (1, 2, 256, 14, 14), (1, 2, 512, 7, 7), (1, 2, 1024, 7, 7)]
OFFSETS = {"of a pixel": 1.0, "of zero": 0.0, "none": None}

HEADER = """\
# What the compiled kernels execute per position: instructions of a warp, and sectors (32 bytes each) that they move to
# and from memory. Counted in the execution of PTX; of the machine code, which ptxas makes from it, the number differs.
# Made by `python -m tests.cuda.compiled` with {compiler}. Columns: type of x, channels, offsets, instructions,
# sectors, kernel.
"""


def compiler_version(home: Path) -> str:
    """For example "nvcc V13.0.88"."""
    text = subprocess.run([str(home / "bin/nvcc"), "--version"], capture_output=True, text=True, check=True).stdout
    return f"nvcc {re.findall(r'V[0-9.]+', text)[0]}"


def compile_kernels(dtype: torch.dtype, home: Path) -> Path:
    """The PTX of the kernels of a type. Its file serves until a source or the compiler changes."""
    name, digest = FILES[dtype], hashlib.sha256(compiler_version(home).encode())
    for source in sorted(CUDA_SOURCES.iterdir()):
        digest.update(source.read_bytes())
    path = Path(tempfile.gettempdir()) / f"sifa-{name}-{digest.hexdigest()[:16]}.ptx"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            written = Path(folder) / path.name
            flags = [*toolkit.NVCC_FLAGS, f"-arch={ARCHITECTURE}", "-ptx", "-o", str(written)]
            subprocess.run([str(home / "bin/nvcc"), *flags, str(CUDA_SOURCES / f"kernels_{name}.cu")], check=True)
            written.replace(path)
    return path


def build_interpreter(folder: Path) -> Path:
    """The program of emulated.cpp, which executes PTX."""
    objects = [build(folder / "emulated.o", "-O0", "-DSIFA_PTX", "-c")]  # it only picks kernels
    for source in sorted((HERE / "ptx").glob("*.cpp")):
        # No multiplication and addition becomes one operation unless PTX says so.
        options = ["-O1", "-fwrapv", "-ffp-contract=off", "-DSIFA_PTX", "-c"]
        objects.append(build(folder / f"{source.stem}.o", *options, sources=[source]))
    return build(folder / "emulated", "-rdynamic", sources=objects)


def counted_calls(dtype: torch.dtype) -> dict[str, Call]:
    """The calls whose instructions are counted."""
    name, calls = f"{str(dtype).removeprefix('torch.'):8}", {}
    for shape in SHAPES:
        for title, deviation in OFFSETS.items():
            call = Call.of(Case(shape=shape, offset=deviation), dtype)
            if deviation == 0 and call.offset is not None:
                call.offset = torch.zeros_like(call.offset)
            calls[f"{name}  C {shape[2]:4}  offsets {title:10}"] = call
    calls[f"{name}  C  128  motion saliency   "] = Call.of_saliency(1, 4, 128, 14, 14, dtype=dtype)
    return calls


def count(program: Program, dtypes: Iterable[torch.dtype]) -> list[str]:
    """A line for each call and kernel."""
    calls = {title: call for dtype in dtypes for title, call in counted_calls(dtype).items()}
    program(list(calls.values()))
    lines, title, positions = [], "", 1
    for line in (program.folder / "counts.txt").read_text().splitlines():
        name, *numbers = line.split()
        if name == "case":
            title, call = list(calls.items())[int(numbers[0])]
            n, t, _, h, w = call.x.shape
            positions = n * (t - 1) * h * w
        else:
            instructions, sectors = (int(number) / positions for number in numbers)
            lines.append(f"{title}  {instructions:8.1f}  {sectors:8.1f}  {readable(name)}")
    return lines


def main() -> None:
    home = toolkit.find_toolkit()
    if home is None:
        raise SystemExit("there is no CUDA compiler; set CUDA_HOME")
    dtypes = [torch.float32, torch.bfloat16]
    with tempfile.TemporaryDirectory() as folder:
        ptx = [str(compile_kernels(dtype, home)) for dtype in dtypes]
        program = Program([str(build_interpreter(Path(folder)))], Path(folder), ptx)
        COUNTS.write_text(HEADER.format(compiler=compiler_version(home)) + "\n".join(count(program, dtypes)) + "\n")
    print(f"wrote {COUNTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
