"""Compares the op with the best of PyTorch: `bash make.sh bench`, or `python -m benchmarks.bench_op --help`.

With --device cuda it is another measurement with another table: see op_on_cuda.py. On the CPU the contestants take
turns. The time of each is that of its fastest run, because other work on a shared machine only adds time; the ratios
are what counts. GFLOP/s count two multiply-adds per element and tap for the forward pass and twice that for the
backward pass, whatever a kernel really does. The limit is the speed that the machine reaches in a large matrix product.
"""

import argparse
import platform
import sys
import time
from pathlib import Path

import torch

import cuda_sifa
from benchmarks import op_on_cuda
from benchmarks.baselines import K, by_gather, by_grid_sample
from benchmarks.cuda_device import CudaDevice
from benchmarks.op_cases import CUDA_SHAPES, SHAPES, Contestant, both_passes, forward_pass, inputs


def fastest(contestants: dict[str, Contestant], seconds: float) -> dict[str, float]:
    """Seconds of each contestant's fastest run; they take turns until each has had its share of the time."""

    def once(run: Contestant) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    for run in contestants.values():
        once(run)
        once(run)
    # Fast contestants run more often within a round, so that all get about the same time.
    first = {name: once(run) for name, run in contestants.items()}
    slowest = max(first.values())
    times: dict[str, list[float]] = {name: [] for name in contestants}
    rounds = max(5, int(seconds / (slowest * len(contestants))))
    for _ in range(min(rounds, 100)):
        for name, run in contestants.items():
            times[name] += [once(run) for _ in range(min(10, max(1, int(slowest / max(first[name], 1e-9) / 2))))]
    return {name: min(values) for name, values in times.items()}


def limit() -> float:
    """Measured GFLOP/s of a large float32 matrix product."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / fastest({"product": lambda: a @ a}, 1.0)["product"] / 1e9


def measure(threads: int, *, only: str, seconds: float, alone: bool, out: Path | None) -> None:
    """The comparison on the CPU."""
    torch.set_num_threads(threads)
    compiled = torch.compile(by_gather, dynamic=False)
    peak = limit()
    lines = [
        f"{platform.processor() or platform.machine()}, {threads} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}, op {cuda_sifa.library.build}; float32 matrix product {peak:.0f} GFLOP/s",
        "",
        "| shape (N, T, C, H) | offsets | dtype | pass | op ms | best PyTorch ms | ratio | GFLOP/s | of the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, shape in SHAPES.items():
        if only not in name:
            continue
        n, t, c, h = shape
        for dtype in (torch.float32, torch.bfloat16):
            for offsets in ("sub-pixel", "zero", "none"):
                x, offset = inputs(shape, offsets, dtype, "cpu")
                for title, make, passes in (("forward", forward_pass, 1), ("both", both_passes, 3)):
                    contestants = {"op": make(cuda_sifa.inter_frame_attention, x, offset)}
                    if not alone:
                        contestants |= {"grid_sample": make(by_grid_sample, x, offset)}
                        contestants |= {"compiled gather": make(compiled, x, offset)}
                    found = fastest(contestants, seconds)
                    mine = found.pop("op")
                    best = min(found, key=lambda key: found[key]) if found else ""
                    gflops = passes * 4 * n * (t - 1) * h * h * c * K * K / mine / 1e9
                    line = (
                        f"| {name} {shape} | {offsets} | {str(dtype).removeprefix('torch.')} | {title} | "
                        f"{mine * 1e3:.3f} | "
                        + (f"{found[best] * 1e3:.2f} ({best}) | {found[best] / mine:.1f} | " if best else "| | ")
                        + f"{gflops:.1f} | {100 * gflops / peak:.0f} % |"
                    )
                    lines.append(line)
                    print(line, flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("\n".join(lines) + "\n")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_op", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="on the CPU")
    parser.add_argument("--seconds", type=float, help="for each comparison: 2 on the CPU, 0.15 on a GPU")
    parser.add_argument("--only", default="", help="measure only the shapes whose name contains this text")
    parser.add_argument("--alone", action="store_true", help="do not measure the PyTorch formulations")
    parser.add_argument("--out", type=Path, help="also write the table to this file, as Markdown")
    args = parser.parse_args(argv)
    shapes = CUDA_SHAPES if args.device == "cuda" else SHAPES
    mistakes = {
        f"--threads must be at least 1, got {args.threads}": args.threads < 1,
        f"--only {args.only}: there is no such shape, there are {', '.join(shapes)}": not any(
            args.only in name for name in shapes
        ),
        "--device cuda: PyTorch sees no GPU": args.device == "cuda" and not torch.cuda.is_available(),
    }
    for text, made in mistakes.items():
        if made:
            print(f"error: {text}", file=sys.stderr)
            return 2
    torch.manual_seed(0)
    torch._dynamo.config.cache_size_limit = 64
    if args.device == "cuda":
        device = CudaDevice()
        op_on_cuda.measure(device, shapes, only=args.only, seconds=args.seconds or 0.15, alone=args.alone, out=args.out)
    else:
        measure(args.threads, only=args.only, seconds=args.seconds or 2.0, alone=args.alone, out=args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
