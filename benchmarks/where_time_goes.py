"""Where the time of SIFA-Net goes, in the forward pass and the training step, in two checkouts of this project.

    git worktree add /tmp/before 24f122d
    (cd /tmp/before; SIFA_WITH_CUDA=0 python cuda_sifa/setup.py build_ext --inplace)
    python -m benchmarks.where_time_goes /tmp/before . --out benchmarks/results/where_time_goes.md

Each checkout computes in a process of its own, both with the same weights and clips. They take turns, so that a busy
machine slows both alike; a ratio is the median over the turns. With one thread the time is that of the processor, with
more it is that of the clock. The parts are shares of the time in PyTorch's profiler, in a run of their own. The losses
of the first steps are compared as well. With --compile the second checkout's network is compiled by torch.compile; it
has no parts then.
"""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.turns import Worker, conditions, ratio, run, seconds, take_turns

OPTIMIZER = "optimizer and limit of the gradient"
#: name -> width, clips, frames, size, calls of a turn
CASES = {
    "demo": (16, 8, 8, 64, 4),
    "own_videos": (16, 8, 16, 112, 1),
    "paper": (64, 1, 16, 224, 1),
}
#: Part of the network -> what the names of PyTorch's operators contain; the first that fits an operator or one of its
#: callers, from the inside, counts.
PARTS = {
    OPTIMIZER: (OPTIMIZER, "Optimizer."),
    "SIFA's op": ("inter_frame_attention", "InterFrameAttention"),
    "convolutions": ("conv", "Conv"),
    "BatchNorm": ("batch_norm", "BatchNorm"),
    "ReLU": ("relu", "Relu", "clamp_min", "threshold"),
    "motion saliency": ("motion_saliency", "MotionSaliency", "sigmoid", "Sigmoid", "aten::sub", "aten::mul"),
    "pooling": ("pool", "Pool", "aten::maximum", "Maximum", "mean", "Mean"),
    "additions": ("aten::add", "AddBackward"),
    "copies and zeros": ("CopySlices", "AsStrided", "copy_", "clone", "fill_", "zero_", "zeros", "slice_backward"),
}
REST = "everything else"


def step_of(kind: str, case: str, compiled: bool) -> Callable[[], float]:
    """A forward pass in eval mode or a training step, as a call that returns the loss (0 in eval mode)."""
    from engine.optim import build_optimizer
    from engine.schema import Optimization
    from models import build_model

    width, clips, frames, size, _ = CASES[case]
    torch.manual_seed(0)
    network = build_model("c2d_sifa_resnet50", num_classes=8, clip_length=frames, width=width, dropout_ratio=0.0)
    network = network.to(memory_format=torch.channels_last)
    batch = torch.randn(clips, frames, size, size, 3).permute(0, 4, 1, 2, 3)
    labels = torch.arange(clips) % 8
    optimizer = build_optimizer(network, Optimization(base_learning_rate=0.01))

    @torch.inference_mode()
    def forward() -> float:
        network(batch)
        return 0.0

    def train() -> float:
        loss = sum((F.cross_entropy(head, labels) for head in network(batch)), Tensor([0.0]))
        loss.backward()
        with record_function(OPTIMIZER):
            torch.nn.utils.clip_grad_norm_(network.parameters(), 40.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    network.train(kind == "step")
    if compiled:
        network.compile()
    return train if kind == "step" else forward


def parts_of(step: Callable[[], float]) -> dict[str, float]:
    """The share of each part in the time of a step."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(3):
            step()
    spent: dict[str, float] = defaultdict(float)
    for event in recorded.events():
        spent[_part(event)] += event.self_cpu_time_total
    return {part: spent[part] / sum(spent.values()) for part in (*PARTS, REST)}


def _part(event: Any) -> str:
    while event is not None:
        for part, words in PARTS.items():
            if any(word in event.name for word in words):
                return part
        event = event.cpu_parent
    return REST


STEP: list[Callable[[], float]] = []  # of this process, once it is built


def answer(command: str, *words: Any) -> Any:
    """In a worker: what a command asks for."""
    if command == "build":
        kind, case, threads, compiled = words
        torch.set_num_threads(threads)
        STEP[:] = [step_of(kind, case, compiled)]
        return [STEP[0]() for _ in range(3)]
    return seconds(STEP[0], *words) if command == "turn" else parts_of(STEP[0])


def compare(before: Worker, now: Worker, kind: str, case: str, threads: int, turns: int, compiled: bool) -> str:
    """The text about one case, with a table of the parts unless the network now is compiled."""
    losses = [before.ask("build", kind, case, threads, False), now.ask("build", kind, case, threads, compiled)]
    rounds = {"before": turns, "now": turns}
    times = take_turns({"before": before, "now": now}, rounds, "turn", CASES[case][4])
    part = ratio(times["now"], times["before"])
    old, new = (1e3 * statistics.median(row) for row in times.values())
    width, clips, frames, size, _ = CASES[case]
    lines = [
        f"## {case}, {'training step' if kind == 'step' else 'forward pass'}{', compiled' if compiled else ''}",
        f"\nwidth {width}, {clips} x {frames} x {size} x {size}, {threads} threads: {old:.0f} ms before, {new:.0f} "
        f"now, ratio {part:.3f}, the median of {turns} turns",
    ]
    if kind == "step":
        apart = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
        lines.append(f"\nLosses of the first three steps: at most {apart:.1e} of their value apart")
    if compiled:
        return "\n".join([*lines, ""])
    shares = [worker.ask("parts") for worker in (before, now)]
    lines.append("\n| part | before, % | now, % of before |\n|---|---|---|")
    for name in (*PARTS, REST):
        lines.append(f"| {name} | {100 * shares[0][name]:.1f} | {100 * part * shares[1][name]:.1f} |")
    return "\n".join([*lines, f"| in all | 100 | {100 * part:.1f} |", ""])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("now", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--kinds", nargs="+", choices=("forward", "step"), default=["forward", "step"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="the second checkout's network")
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    args = parser.parse_args(argv)
    text = f"# Where the time of SIFA-Net goes\n\n{conditions(args.threads)}\n"
    print(text)
    for case in args.cases:
        for kind in args.kinds:
            workers = [Worker("benchmarks.where_time_goes", folder) for folder in (args.before, args.now)]
            table = compare(workers[0], workers[1], kind, case, args.threads, args.turns, args.compile)
            for worker in workers:
                worker.close()
            print(table, flush=True)
            text += "\n" + table
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    run(main, answer)
