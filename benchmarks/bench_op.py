"""The op beside the best of PyTorch, in one run: `bash make.sh bench`, or `python -m benchmarks.bench_op --help`.

Contestants take turns, and the time of each is the fastest of its runs: what a shared machine adds is never negative.
Read the ratios. GFLOP/s count two multiply-adds an element and tap forward and twice that backward, whatever a kernel
really does. The limit is what the machine reaches in a large matrix product.
"""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import cuda_sifa
from benchmarks.baselines import K, by_gather, by_grid_sample

SHAPES = {  # (N, T, C, H): maps are square
    "SIFA-Net res3": (2, 4, 128, 28),
    "SIFA-Net res4": (2, 4, 256, 14),
    "SIFA-Net res5": (2, 4, 512, 7),
    "SIFA-Transformer 1": (1, 16, 128, 56),
    "SIFA-Transformer 3": (1, 16, 512, 14),
    "SIFA-Transformer 4": (1, 16, 1024, 7),
}
CUDA_SHAPES = {
    "SIFA-Net res3": (24, 4, 128, 28),
    "SIFA-Net res4": (24, 4, 256, 14),
    "SIFA-Net res5": (24, 4, 512, 7),
    "SIFA-Transformer 1": (8, 16, 128, 56),
    "SIFA-Transformer 2": (8, 16, 256, 28),
    "SIFA-Transformer 3": (8, 16, 512, 14),
    "SIFA-Transformer 4": (8, 16, 1024, 7),
}
Contestant = Callable[[], object]


def inputs(shape: tuple[int, ...], offsets: str, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor | None]:
    """x and offset with channels innermost, as the networks hand them over. Offsets: pixels, about one, zero, none."""
    n, t, c, h = shape
    x = torch.randn(n, t, h, h, c, device=device).to(dtype).permute(0, 1, 4, 2, 3)
    if offsets == "none":
        return x, None
    field = torch.randn(n, t - 1, h, h, 2 * K * K, device=device) if offsets == "sub-pixel" else torch.zeros(())
    return x, field.expand(n, t - 1, h, h, 2 * K * K).to(device, dtype).contiguous().permute(0, 1, 4, 2, 3)


def both_passes(function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, offset: Tensor | None) -> Contestant:
    x = x.detach().requires_grad_()
    needed = [x] if offset is None else [x, offset.detach().requires_grad_()]
    grad = torch.randn_like(x)
    return lambda: torch.autograd.grad(function(*needed, *([None] if offset is None else [])), needed, grad)


def forward_pass(function: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, offset: Tensor | None) -> Contestant:
    def run() -> object:
        with torch.no_grad():
            return function(x, offset)

    return run


def fastest(contestants: dict[str, Contestant], device: str, seconds: float) -> dict[str, float]:
    """Seconds of the fastest run of each contestant; all take turns until each had its share of the time."""

    def once(run: Contestant) -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for run in contestants.values():
        once(run)
        once(run)
    # Fast contestants run more often within a round: all get about the same time.
    first = {name: once(run) for name, run in contestants.items()}
    slowest = max(first.values())
    times: dict[str, list[float]] = {name: [] for name in contestants}
    rounds = max(5, int(seconds / (slowest * len(contestants))))
    for _ in range(min(rounds, 100)):
        for name, run in contestants.items():
            times[name] += [once(run) for _ in range(min(10, max(1, int(slowest / max(first[name], 1e-9) / 2))))]
    return {name: min(values) for name, values in times.items()}


def limit(device: str) -> float:
    """Measured GFLOP/s of a large float32 matrix product."""
    a = torch.randn(2048, 2048, device=device)
    return 2 * 2048**3 / fastest({"product": lambda: a @ a}, device, 1.0)["product"] / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="on the CPU")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each comparison")
    parser.add_argument("--only", default="", help="shapes whose name holds this text")
    parser.add_argument("--alone", action="store_true", help="without the PyTorch formulations")
    parser.add_argument("--out", type=Path, help="write the table here too, as Markdown")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    torch._dynamo.config.cache_size_limit = 64
    compiled = torch.compile(by_gather, dynamic=False)
    machine = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.processor() or platform.machine()}"
    peak = limit(args.device)
    lines = [
        f"{machine}, {args.threads} threads, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, "
        f"op {cuda_sifa.library.build}; float32 matrix product {peak:.0f} GFLOP/s",
        "",
        "| shape (N, T, C, H) | offsets | dtype | pass | op ms | best PyTorch ms | ratio | GFLOP/s | of the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, shape in (CUDA_SHAPES if args.device == "cuda" else SHAPES).items():
        if args.only not in name:
            continue
        n, t, c, h = shape
        for dtype in (torch.float32, torch.bfloat16):
            for offsets in ("sub-pixel", "zero", "none"):
                x, offset = inputs(shape, offsets, dtype, args.device)
                for title, make, passes in (("forward", forward_pass, 1), ("both", both_passes, 3)):
                    contestants = {"op": make(cuda_sifa.inter_frame_attention, x, offset)}
                    if not args.alone:
                        contestants |= {"grid_sample": make(by_grid_sample, x, offset)}
                        contestants |= {"compiled gather": make(compiled, x, offset)}
                    found = fastest(contestants, args.device, args.seconds)
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
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
