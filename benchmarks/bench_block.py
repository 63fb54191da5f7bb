"""SIFA's block on the CPU, without its offset convolution, in two checkouts of this project.

    git worktree add /tmp/before 24f122d
    (cd /tmp/before; SIFA_WITH_CUDA=0 python cuda_sifa/setup.py build_ext --inplace)
    python -m benchmarks.bench_block /tmp/before . --out benchmarks/results/block-cpu.md

The block is the motion saliency, from which the convolution would predict the offsets, and the clip plus its attention
to the next frame. Where the checkout's op has no motion_saliency, plain PyTorch computes what is around attention. The
offsets are given. Each checkout computes in a process of its own; they take turns. The result is the median of the
ratios of all turns.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.turns import Worker, conditions, ratio, run, seconds, take_turns

# The project's packages are loaded in functions: a worker loads those of its checkout.
SHAPES = ["SIFA-Net res3", "SIFA-Net res4", "SIFA-Transformer 1"]  # of op_cases.py
Block = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def with_ops(x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The saliency and the result of the block."""
    from cuda_sifa import inter_frame_attention, motion_saliency

    return motion_saliency(x), inter_frame_attention(x, offset, residual=True)


def plain(x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """The same, with plain PyTorch around attention."""
    from cuda_sifa import inter_frame_attention

    frame, following = x[:, :-1], x[:, 1:]
    saliency = torch.sigmoid(following - frame) * following + following
    return saliency, x + inter_frame_attention(x, offset)


def passes(block: Block, shape: tuple[int, int, int, int], dtype: torch.dtype, *, backward: bool) -> Callable[[], None]:
    """The forward pass, or both passes."""
    from benchmarks.op_cases import inputs

    torch.manual_seed(0)
    x, offset = inputs(shape, "sub-pixel", dtype, "cpu")
    assert offset is not None
    needed = [x.requires_grad_(backward), offset.requires_grad_(backward)]
    grads = [torch.randn_like(result) for result in block(x.detach(), offset.detach())]

    def call() -> None:
        results = block(x, offset)
        if backward:
            torch.autograd.grad(results, needed, grads)

    return call


CALL: list[Callable[[], None]] = []  # of this process, once it is built


def answer(command: str, *words: Any) -> Any:
    """In a worker: what a command asks for."""
    if command == "turn":
        return seconds(CALL[0])
    import cuda_sifa
    from benchmarks.op_cases import SHAPES as shapes

    shape, dtype, backward, threads = words
    torch.set_num_threads(threads)
    block = with_ops if hasattr(cuda_sifa, "motion_saliency") else plain
    CALL[:] = [passes(block, shapes[shape], getattr(torch, dtype), backward=backward)]
    for _ in range(3):
        CALL[0]()
    return None


def compare(workers: dict[str, Worker], case: tuple[str, str, bool, int], turns: int) -> str:
    """The line of one case."""
    for worker in workers.values():
        worker.ask("build", *case)
    times = take_turns(workers, dict.fromkeys(workers, turns), "turn")
    before, now = (1e3 * statistics.median(row) for row in times.values())
    shape, dtype, backward, _ = case
    what = "forward and backward" if backward else "forward"
    return f"| {shape} | {dtype} | {what} | {before:.2f} | {now:.2f} | {ratio(times['before'], times['now']):.2f} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("now", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--out", type=Path, help="also write the table to this file, as Markdown")
    args = parser.parse_args(argv)
    lines = [
        "# SIFA's block on the CPU, before and now\n",
        f"{conditions(args.threads)}; medians of {args.turns} turns\n",
        "| shape | dtype | passes | before, ms | now, ms | ratio |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    workers = {name: Worker("benchmarks.bench_block", getattr(args, name)) for name in ("before", "now")}
    for shape in args.shapes:
        for dtype in ("float32", "bfloat16"):
            for backward in (False, True):
                lines.append(compare(workers, (shape, dtype, backward, args.threads), args.turns))
                print(lines[-1], flush=True)
    for worker in workers.values():
        worker.close()
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run(main, answer)
