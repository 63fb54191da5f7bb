"""Tables and picture of benchmarks/real_motion.py, from the answers that it kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from engine.statistics import Interval, bootstrap_difference, bootstrap_mean, mcnemar

REFERENCE = "SIFA"  # that the others are compared with
TASK_NAMES = {"direction": "forwards or backwards", "labels": "labels"}
FLOW_COLUMNS = (
    ("offset std", ".2f"),
    ("offset std of a tap", ".2f"),
    ("largest offset", ".1f"),
    ("outside", ".0%"),
    ("flow std Farneback", ".2f"),
    ("r Farneback", ".2f"),
    ("moving r Farneback", ".2f"),
    ("r DIS", ".2f"),
    ("moving r DIS", ".2f"),
    ("branch", ".2f"),
)


@dataclass(frozen=True)
class Answers:
    """The answers of the contestants in one task with one stem.

    Args:
        of: contestant -> (seeds, samples): 1 right, 0 wrong, NaN where the network has not been run.
        groups: (samples,) what a bootstrap draws together: the groups in the task direction, else the videos.
        videos: (samples,) their paths.
    """

    of: dict[str, np.ndarray]
    groups: np.ndarray
    videos: np.ndarray


def answers(results: dict[str, Any], task: str, stem: int) -> Answers | None:
    """Gathers the answers; None if there are none."""
    cells = [cell for cell in results["cells"] if (cell["task"], cell["stem"]) == (task, stem)]
    if not cells:
        return None
    splits, seeds = (sorted({cell[name] for cell in cells}) for name in ("split", "seed"))
    described = [results["videos"][f"{task}, {split}"] for split in splits]
    starts = np.cumsum([0, *(len(one["samples"]) for one in described)])
    table: dict[str, np.ndarray] = {}
    for cell in cells:
        values = table.setdefault(cell["contestant"], np.full((len(seeds), starts[-1]), np.nan))
        start, right = starts[splits.index(cell["split"])], np.array(list(cell["right"]), dtype=float)
        values[seeds.index(cell["seed"]), start : start + len(right)] = right
    videos = np.array([sample.removesuffix(" backwards") for one in described for sample in one["samples"]])
    groups = np.array([group for one in described for group in one["groups"]])
    return Answers(table, groups if task == "direction" else videos, videos)


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings = results["settings"]
    lines = [
        "# Motion in real videos",
        "",
        f"A ResNet of depths {settings['depths']} and width {settings['width']} with one head, clips of "
        f"{settings['frames']} frames of {settings['crop']} x {settings['crop']} pixels, {settings['epochs']} epochs "
        f"of AdamW, batch {settings['batch']}, learning rates {settings['rates']}"
        + (" (chosen on held-out groups of the training videos)" if len(settings["rates"]) > 1 else " (not chosen)")
        + f". torch {settings['torch']}, CPU. {len(results['cells'])} networks, "
        f"{sum(cell['minutes'] for cell in results['cells']):.0f} minutes.",
        "",
    ]
    for task in TASK_NAMES:
        for stem in (1, 4):
            if gathered := answers(results, task, stem):
                lines += [*_comparison(gathered, task, stem), ""]
    lines += _flow_table(results["cells"])
    return "\n".join(lines).rstrip() + "\n"


def _comparison(gathered: Answers, task: str, stem: int) -> list[str]:
    drawn = "groups of videos" if task == "direction" else "videos"
    lines = [
        f"## Task: {TASK_NAMES[task]}, stem of {stem} frame{'s' if stem > 1 else ''}",
        "",
        f"95 % intervals by bootstrap over {drawn} and seeds; one seed says nothing about how seeds differ. The "
        f"difference from {REFERENCE} and McNemar's test (majority of the seeds) are of the runs that both have.",
        "",
        f"| in SIFA's place | videos, seeds | top-1, % | 95 % interval | minus {REFERENCE} | 95 % interval "
        f"| right alone: it, {REFERENCE} | p (McNemar) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, values in gathered.of.items():
        seen = ~np.isnan(values)
        mean = bootstrap_mean(100 * values, gathered.groups)
        videos, seeds = len(set(gathered.videos[seen.any(0)])), int(seen.any(1).sum())
        row = f"| {name} | {videos}, {seeds} | {mean.value:.1f} | {_span(mean)} |"
        lines.append(row + _difference(gathered, values, name))
    return lines


def _difference(gathered: Answers, values: np.ndarray, name: str) -> str:
    """The columns that compare a contestant with the reference, on the runs and videos that both have."""
    reference = gathered.of.get(REFERENCE, np.full_like(values, np.nan))
    both = ~np.isnan(values) & ~np.isnan(reference)
    if name == REFERENCE or not both.any():
        return " | | | |"
    one, other = (np.where(both, side, np.nan) for side in (values, reference))
    difference = bootstrap_difference(100 * other, 100 * one, gathered.groups)
    compared = both.any(0)
    test = mcnemar(*(np.nanmean(side[:, compared], axis=0) > 0.5 for side in (one, other)))
    return f" {difference.value:+.1f} | {_span(difference)} | {test.only_first}, {test.only_second} | {test.p:.3f} |"


def _span(interval: Interval) -> str:
    return f"{interval.low:.1f} to {interval.high:.1f}"


def _flow_table(cells: Sequence[dict[str, Any]]) -> list[str]:
    rows = []
    for key in dict.fromkeys((cell["task"], cell["stem"], cell["contestant"]) for cell in cells):
        of_key = [cell["offsets"] for cell in cells if (cell["task"], cell["stem"], cell["contestant"]) == key]
        for module in dict.fromkeys(name for offsets in of_key for name in offsets):
            entries = [offsets[module] for offsets in of_key if module in offsets]
            columns = " | ".join(_average(entries, name, form) for name, form in FLOW_COLUMNS)
            height, width = entries[0]["map"]
            rows.append(f"| {TASK_NAMES[key[0]]} | {key[1]} | {key[2]} | {module} | {height} x {width} | {columns} |")
    if not rows:
        return []
    head = "| task | stem | network | module | map | " + " | ".join(name for name, _ in FLOW_COLUMNS) + " |"
    return [
        "## Learned offsets and optical flow",
        "",
        "On test clips, means over the networks of a row. Lengths in positions of the map; `offset` is the mean over "
        "the taps, `outside` the share of sampling points outside the map, `r` the correlation with the flow, "
        "`moving r` where the flow is half a pixel or more, `branch` the spread of what SIFA adds over that of the "
        "features.",
        "",
        head,
        "|---" * (5 + len(FLOW_COLUMNS)) + "|",
        *rows,
    ]


def _average(entries: Sequence[dict[str, Any]], name: str, form: str) -> str:
    values = [entry[name] for entry in entries if entry[name] is not None]
    return format(float(np.mean(values)), form) if values else "-"


# ---- Picture --------------------------------------------------------------------------------------------------------


def draw(results: dict[str, Any], file: Path) -> None:
    """Accuracies with intervals for each task and stem, and offsets next to the flow for each module of one network."""
    panels = [(task, stem, a) for task in TASK_NAMES for stem in (1, 4) if (a := answers(results, task, stem))]
    arrows: dict[str, Any] = next((cell["offsets"] for cell in reversed(results["cells"]) if cell["offsets"]), {})
    columns = max(len(panels), len(arrows), 1)
    figure = Figure(figsize=(5 * columns, 7), layout="tight")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.ravel():
        axis.set_visible(False)
    for axis, (task, stem, gathered) in zip(axes[0], panels, strict=False):
        _draw_accuracies(axis, gathered, f"{TASK_NAMES[task]}, stem of {stem}")
    for axis, (name, entry) in zip(axes[1], arrows.items(), strict=False):
        _draw_arrows(axis, name, entry)
    figure.savefig(file, dpi=100)


def _draw_accuracies(axis: Any, gathered: Answers, title: str) -> None:
    axis.set_visible(True)
    names = list(reversed(gathered.of))
    for row, name in enumerate(names):
        mean = bootstrap_mean(100 * gathered.of[name], gathered.groups)
        error = [[mean.value - mean.low], [mean.high - mean.value]]
        axis.errorbar(mean.value, row, xerr=error, fmt="o", color="#4c78a8", capsize=3)
    axis.set_yticks(range(len(names)), names)
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
