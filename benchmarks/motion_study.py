"""What SIFA adds where the stem sees no motion: five small networks, the same clips and budget, three seeds each.

    python -m benchmarks.motion_study [--steps 400] [--seeds 3] [--processes 2]

A textured square moves left, right, up or down over a textured background, but only between tubes of 4 frames. Within a
tube nothing moves, so the stem sees four still pictures. A single frame looks alike in all classes. A network that does
not know the order of the frames can at best tell horizontal from vertical motion by its trail, which gives 50 %;
guessing gives 25 %. The networks differ only in the temporal module. The task is made to need motion: it shows what the
mechanism can do, not what it gains on real videos.

The accuracies on clips that were not used for training go to benchmarks/results/motion_study.json, .md and .png, with
the mean and the standard deviation of the seeds. Two cores take less than half an hour.
"""

import argparse
import json
import math
import platform
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy

from datasets.processes import end_with_parent

VARIANTS: dict[str, dict[str, Any]] = {
    "2D network": {"temporal": "none"},
    "temporal shift": {"temporal": "shift"},
    "temporal convolution": {"temporal": "conv"},
    "SIFA, regular neighbourhood": {"temporal": "sifa", "offset": "regular"},
    "SIFA, learned offsets": {"temporal": "sifa", "offset": "motion_saliency"},
}
RESULTS = Path(__file__).parent / "results"
DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))  # rows, columns
TUBES, TUBE, SIZE, SQUARE = 4, 4, 48, 14
STEPS = (6, 14)  # pixels from one tube to the next: about one to two positions of res3's map
BATCH, RATE, WARM_UP = 16, 0.05, 40
EVALUATED = 512


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clips (count, 3, 16, 48, 48) of about unit variance, and their classes."""

    def texture(side: int) -> Tensor:
        coarse = avg_pool2d(torch.rand(count, 3, side + 2, side + 2, generator=generator), 3, stride=1)
        return (coarse - 0.5) * 6

    label = torch.randint(4, (count,), generator=generator)
    stride = torch.randint(STEPS[0], STEPS[1] + 1, (count,), generator=generator)
    start = torch.randint(SIZE, (count, 2), generator=generator)
    background, square = texture(SIZE), texture(SQUARE) + 1.5
    clips = background[:, :, None].repeat(1, 1, TUBES, 1, 1)
    side = torch.arange(SQUARE)
    for i in range(count):
        for tube in range(TUBES):
            down, right = (start[i] + tube * stride[i] * torch.tensor(DIRECTIONS[label[i]])).tolist()
            rows, columns = (down + side) % SIZE, (right + side) % SIZE  # leaves at one border, enters at the other
            clips[i, :, tube, rows[:, None], columns] = square[i]
    clips = clips.repeat_interleave(TUBE, dim=2)
    return clips + 0.3 * torch.randn(clips.shape, generator=generator), label


def train(name: str, seed: int, *, steps: int) -> dict[str, Any]:
    """Trains one network; returns its accuracy in percent."""
    from models import build_model

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    began = time.monotonic()
    model = build_model(
        "c2d_sifa_resnet50",
        num_classes=4,
        clip_length=16,
        width=8,
        dual_head=False,
        dropout_ratio=0.0,
        **VARIANTS[name],
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * i / steps))
    )
    generator = torch.Generator().manual_seed(1000 + seed)  # the same clips for every network
    losses = []
    for _ in range(steps):
        clips, label = draw(BATCH, generator)
        loss = cross_entropy(model(clips)[0], label)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    model.eval()
    clips, label = draw(EVALUATED, torch.Generator().manual_seed(0))
    with torch.no_grad():
        hits = torch.cat([model(part)[0].argmax(1) for part in clips.split(64)]) == label
    return {
        "network": name,
        "seed": seed,
        "top-1": 100 * hits.float().mean().item(),
        "last losses": statistics.mean(losses[-20:]),
        "minutes": (time.monotonic() - began) / 60,
    }


def table(runs: list[dict[str, Any]], steps: int) -> str:
    lines = ["| temporal module | top-1, % | seeds |", "|---|---|---|"]
    for name in VARIANTS:
        values = [run["top-1"] for run in runs if run["network"] == name]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        each = ", ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {name} | {statistics.mean(values):.1f} ± {spread:.1f} | {each} |")
    return "\n".join(
        [
            "# Motion that the stem cannot see",
            "",
            *lines,
            "",
            f"{steps} steps of {BATCH} clips of 16 x {SIZE} x {SIZE}, a ResNet-50 of width 8 with one head, "
            f"{EVALUATED} clips to validate on;",
            "mean and standard deviation of the seeds. Guessing gives 25; telling only horizontal from vertical motion",
            "gives 50. The budget is short: a network near 25 has not begun to learn, and might with a longer budget.",
            "Some results of the three seeds lie far apart, so networks with close means cannot be ranked.",
            f"Made by `python -m benchmarks.motion_study --steps {steps}` with torch {torch.__version__} on "
            f"{platform.machine()}, one core per network.",
            "",
        ]
    )


def plot(runs: list[dict[str, Any]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3))
    for row, name in enumerate(reversed(VARIANTS)):
        values = [run["top-1"] for run in runs if run["network"] == name]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        axes.barh(row, statistics.mean(values), xerr=spread, color="#4c78a8", capsize=3)
        axes.plot(values, [row] * len(values), "k.", markersize=4)
    axes.set_yticks(range(len(VARIANTS)), list(reversed(VARIANTS)))
    axes.axvline(25, color="grey", linestyle=":")
    axes.axvline(50, color="grey", linestyle="--")
    axes.set_xlim(0, 100)
    axes.set_xlabel("top-1 in %; dotted: guessing, dashed: the best without the order of frames")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    todo = [(name, seed) for seed in range(args.seeds) for name in VARIANTS]
    runs = []
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        for run in pool.map(partial(train, steps=args.steps), *zip(*todo, strict=True)):
            print(json.dumps(run), flush=True)
            runs.append(run)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "motion_study.json").write_text(json.dumps(runs, indent=1) + "\n")
    text = table(runs, args.steps)
    (args.out / "motion_study.md").write_text(text)
    plot(runs, args.out / "motion_study.png")
    print(text)


if __name__ == "__main__":
    main()
