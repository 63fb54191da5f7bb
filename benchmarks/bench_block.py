"""SIFA's block on the CPU, without its offset convolution: python -m benchmarks.bench_block

The block is the motion saliency, from which the convolution would predict the offsets, and the clip plus its attention
to the next frame. Two forms of it take turns: with the ops motion_saliency and inter_frame_attention(residual=True),
and with everything around attention in plain PyTorch (a difference, a sigmoid, a product and two sums). Attention is
the compiled op in both. The offsets are given. The result is the median of the ratios of all turns.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.op_cases import SHAPES, Contestant, Shape, inputs
from cuda_sifa import inter_frame_attention, library, motion_saliency

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def with_ops(x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The saliency and the result of the block."""
    return motion_saliency(x), inter_frame_attention(x, offset, residual=True)


def plain(x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with plain PyTorch around attention."""
    frame, following = x[:, :-1], x[:, 1:]
    saliency = torch.sigmoid(following - frame) * following + following
    return saliency, x + inter_frame_attention(x, offset)


def passes(shape: Shape, dtype: torch.dtype, *, backward: bool) -> list[Contestant]:
    """The forward pass of both forms, or both passes, on the same values."""
    x, offset = inputs(shape, "sub-pixel", dtype, "cpu")
    assert offset is not None
    needed = [x.requires_grad_(backward), offset.requires_grad_(backward)]
    grads = [torch.randn_like(result) for result in with_ops(x.detach(), offset.detach())]

    def contestant(form: object) -> Contestant:
        def run() -> None:
            results = form(x, offset)  # type: ignore[operator]
            if backward:
                torch.autograd.grad(results, needed, grads)

        return run

    return [contestant(plain), contestant(with_ops)]


def seconds(run: Contestant) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(shape: Shape, dtype: torch.dtype, *, backward: bool, turns: int) -> tuple[float, float, float]:
    """Median seconds of the plain form and with the ops, and the median ratio of the two in the same turn."""
    contestants = passes(shape, dtype, backward=backward)
    for run in contestants * 2:
        run()
    times = [[seconds(run) for run in contestants] for _ in range(turns)]
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    return before, after, statistics.median(a / b for a, b in times)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_block",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["SIFA-Net res3"])
    parser.add_argument("--out", type=Path, help="also write the table to this file, as Markdown")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    lines = [
        f"{torch.backends.cpu.get_cpu_capability()}, {args.threads} threads, torch {torch.__version__}, op "
        f"{library.build}; medians of {args.turns} turns",
        "",
        "| shape (N, T, C, H) | dtype | passes | plain ms | with the ops ms | ratio |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in args.shapes:
        for title, dtype in DTYPES.items():
            for backward in (False, True):
                before, after, ratio = compare(SHAPES[name], dtype, backward=backward, turns=args.turns)
                what = "forward and backward" if backward else "forward"
                cells = (
                    name + f" {SHAPES[name]}",
                    title,
                    what,
                    f"{before * 1e3:.2f}",
                    f"{after * 1e3:.2f}",
                    f"{ratio:.2f}",
                )
                lines.append(f"| {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
