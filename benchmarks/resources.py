"""Registers, spills and blocks per multiprocessor of the CUDA kernels, from the compiler. Needs nvcc, no GPU.

python -m benchmarks.resources --out benchmarks/results/resources-sm90.md
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from cuda_sifa import toolkit

SOURCES = Path(toolkit.__file__).parent / "csrc" / "cuda"
THREADS, REGISTERS = 256, 65536  # of a block, of a multiprocessor
TYPES = {"f": "float32", "d": "float64", "6__half": "float16", "13__nv_bfloat16": "bfloat16"}


def readable(name: str) -> str:
    """From the mangled name to, for example, tiled_backward_kernel<float32, 3, 32, 2>."""
    found = re.match(r"_ZN4sifa\d+(\w+?_kernel)I(f|d|6__half|13__nv_bfloat16)((?:L[ib]\d+E)*)E", name)
    if not found:
        return name
    numbers = re.findall(r"L[ib](\d+)E", found[3])
    return f"{found[1]}<{', '.join([TYPES[found[2]], *numbers])}>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    home = toolkit.find_toolkit()
    if home is None:
        raise SystemExit("there is no CUDA compiler; set CUDA_HOME")
    lines = [
        f"nvcc {toolkit.version_of(home)}, {args.arch}, `{' '.join(toolkit.NVCC_FLAGS)} -Xptxas=-v`: what the compiler",
        "reports, not a measurement. Blocks: how many blocks of 256 threads fit the registers of a multiprocessor. The",
        "numbers after the type of forward_kernel and tiled_backward_kernel: k, lanes per position, vectors per lane,",
        "1 if the lanes hold exactly the channels of a head; of the others: channels per vector, vectors per lane.",
        "",
        "| kernel<type, ...> | registers | spilled bytes | blocks |",
        "|---|---|---|---|",
    ]
    for source in sorted(SOURCES.glob("*.cu")):
        with tempfile.NamedTemporaryFile() as cubin:
            command = [
                str(home / "bin/nvcc"),
                *toolkit.NVCC_FLAGS,
                f"-arch={args.arch}",
                "-Xptxas=-v",
                "-cubin",
                str(source),
            ]
            done = subprocess.run([*command, "-o", cubin.name], capture_output=True, text=True, check=True)
        pattern = r"properties for (\w+)\n.*?(\d+) bytes spill stores, (\d+) bytes spill loads\n.*?Used (\d+) registers"
        for name, stores, loads, registers in re.findall(pattern, done.stderr):
            blocks = REGISTERS // (THREADS * -(-int(registers) // 8) * 8)
            lines.append(f"| {readable(name)} | {registers} | {int(stores) + int(loads)} | {blocks} |")
    print("\n".join(lines))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
