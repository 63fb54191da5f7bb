"""Picture of benchmarks/real_motion.py: accuracies with intervals, and offsets next to the optical flow."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.motion_tables import TASK_NAMES, Answers, answers
from engine.statistics import bootstrap_mean


def draw(results: dict[str, Any], file: Path) -> None:
    """Accuracies with intervals for each task and stem, and offsets next to the flow for each module of one network."""
    panels = [(task, stem, a) for task in TASK_NAMES for stem in (1, 4) if (a := answers(results, task, stem))]
    shown: dict[str, Any] = next((cell for cell in reversed(results["cells"]) if cell["offsets"]), {"offsets": {}})
    arrows: dict[str, Any] = shown["offsets"]
    columns = max(len(panels), len(arrows), 1)
    longest = max((len(gathered.of) for _, _, gathered in panels), default=0)
    heights = [max(3.5, 1 + 0.35 * longest), *([3.5] if arrows else [])]  # inches; room for two lines a contestant
    figure = Figure(figsize=(5 * columns, sum(heights)), layout="tight")
    axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    for axis in axes.ravel():
        axis.set_visible(False)
    for axis, (task, stem, gathered) in zip(axes[0], panels, strict=False):
        _draw_accuracies(axis, gathered, f"{TASK_NAMES[task]}, stem of {stem}")
    for axis, (name, entry) in zip(axes[-1], arrows.items(), strict=False):
        _draw_arrows(axis, f"{shown['contestant']}\n{name}", entry)
    figure.savefig(file, dpi=100)


def _draw_accuracies(axis: Any, gathered: Answers, title: str) -> None:
    axis.set_visible(True)
    names = list(reversed(gathered.of))
    for row, name in enumerate(names):
        mean = bootstrap_mean(100 * gathered.of[name], gathered.groups)
        error = [[mean.value - mean.low], [mean.high - mean.value]]
        axis.errorbar(mean.value, row, xerr=error, fmt="o", color="#4c78a8", capsize=3)
    videos = [int((~np.isnan(gathered.of[name])).any(0).sum()) for name in names]
    counts = [f"{name}\n{n} clips, {gathered.seeds(name)} seeds" for name, n in zip(names, videos, strict=True)]
    axis.set_yticks(range(len(names)), counts, fontsize=8)
    axis.set_xlabel("top-1, %, with 95 % interval")
    axis.set_title(title, fontsize=10)


def _draw_arrows(axis: Any, name: str, entry: dict[str, Any]) -> None:
    """Mean offsets and Farneback's flow where the clip moves most; both in positions, in their true length."""
    axis.set_visible(True)
    offset, flow = np.array(entry["arrows"]["offset"]), np.array(entry["arrows"]["Farneback"])
    pair = int(np.linalg.norm(flow, axis=1).mean((1, 2)).argmax())
    for field, colour, label in ((flow, "#e45756", "flow"), (offset, "#4c78a8", "offset")):
        y, x = field[pair]
        axis.quiver(x, y, color=colour, angles="xy", scale_units="xy", scale=1, width=0.006, label=label)
    axis.set_xlim(-1, offset.shape[-1])
    axis.set_ylim(offset.shape[-2], -1)
    axis.set_aspect("equal")
    axis.set_title(f"{name}: offset and flow, one pair of frames", fontsize=10)
    axis.legend(fontsize=8, loc="upper right")
