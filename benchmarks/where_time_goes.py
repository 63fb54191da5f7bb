"""Where the time of SIFA-Net goes, in the forward pass and the training step, in two checkouts of this project.

    git worktree add /tmp/before 24f122d
    (cd /tmp/before; SIFA_WITH_CUDA=0 python cuda_sifa/setup.py build_ext --inplace)
    python -m benchmarks.where_time_goes /tmp/before . --out benchmarks/results/where_time_goes.md

Each checkout computes in a process of its own, both with the same weights and clips. They take turns, so that a busy
machine slows both alike; a ratio is the median over the turns. With one thread the time is that of the processor, with
more it is that of the clock. The parts are shares of the time in PyTorch's profiler, in a run of their own. The losses
of the first steps are compared as well.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

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


def step_of(kind: str, case: str) -> Callable[[], float]:
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


def work() -> None:
    """In a checkout: reads commands from standard input, answers each with a line of JSON."""
    step: Callable[[], float] = float
    for line in sys.stdin:
        command, *words = json.loads(line)
        answer: Any = None
        if command == "build":
            torch.set_num_threads(int(words[2]))
            step = step_of(words[0], words[1])
            answer = [step() for _ in range(3)]
        elif command == "turn":
            clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
            began = clock()
            for _ in range(words[0]):
                step()
            answer = (clock() - began) / words[0]
        else:
            answer = parts_of(step)
        print(json.dumps(answer), flush=True)


class Checkout:
    """A process that computes with the code of a folder."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--work"]
        environment = {**os.environ, "PYTHONPATH": str(folder.resolve()), "PYTHONSAFEPATH": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
        )

    def ask(self, *command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def compare(before: Checkout, now: Checkout, kind: str, case: str, threads: int, turns: int) -> str:
    """The table of one case."""
    losses = [checkout.ask("build", kind, case, threads) for checkout in (before, now)]
    times: list[list[float]] = [[], []]
    for turn in range(turns):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            times[which].append((before, now)[which].ask("turn", CASES[case][4]))
    ratio = statistics.median(new / old for old, new in zip(*times, strict=True))
    shares = [checkout.ask("parts") for checkout in (before, now)]
    old, new = (1e3 * statistics.median(row) for row in times)
    width, clips, frames, size, _ = CASES[case]
    lines = [
        f"## {case}, {'training step' if kind == 'step' else 'forward pass'}",
        f"\nwidth {width}, {clips} x {frames} x {size} x {size}, {threads} threads: {old:.0f} ms before, {new:.0f} "
        f"now, ratio {ratio:.3f}, the median of {turns} turns",
    ]
    if kind == "step":
        apart = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
        lines.append(f"\nLosses of the first three steps: at most {apart:.1e} of their value apart")
    lines.append("\n| part | before, % | now, % of before |\n|---|---|---|")
    for part in (*PARTS, REST):
        lines.append(f"| {part} | {100 * shares[0][part]:.1f} | {100 * ratio * shares[1][part]:.1f} |")
    return "\n".join([*lines, f"| in all | 100 | {100 * ratio:.1f} |", ""])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("now", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--kinds", nargs="+", choices=("forward", "step"), default=["forward", "step"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    args = parser.parse_args(argv)
    text = (
        f"# Where the time of SIFA-Net goes\n\n{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}, {date.today()}, load average {os.getloadavg()[0]:.1f}\n"
    )
    print(text)
    for case in args.cases:
        for kind in args.kinds:
            checkouts = Checkout(args.before), Checkout(args.now)
            table = compare(*checkouts, kind, case, args.threads, args.turns)
            for checkout in checkouts:
                checkout.close()
            print(table, flush=True)
            text += "\n" + table
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        work()
    else:
        sys.exit(main())
