"""Tables of benchmarks/real_motion.py, from the answers that it kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.statistics import Interval, bootstrap_difference, bootstrap_mean, mcnemar

REFERENCE = "SIFA"  # that the others are compared with
#: The paper's top-1 on Kinetics-400 with each of them in res5.
PAPER = {
    "2D network": 72.0,
    "temporal shift": 74.7,
    "temporal convolution": 74.1,
    "temporal difference": 76.6,
    "correlation": 75.1,
    "SIFA_C": 73.3,
    "SIFA_R": 74.6,
    "SIFA": 75.4,
}
#: What the paper's figures say: the first one is better.
CLAIMS = (
    ("SIFA", "SIFA_R"),
    ("SIFA", "SIFA_C"),
    ("SIFA", "correlation"),
    ("SIFA", "temporal shift"),
    ("SIFA", "temporal convolution"),
    ("SIFA", "2D network"),
    ("temporal difference", "SIFA"),
    ("SIFA_R", "SIFA_C"),
    ("SIFA_R", "2D network"),
    ("temporal shift", "2D network"),
)
NETWORKS_OF_A_VERDICT = 5  # of seeds or of splits; with less the interval knows too little of how trainings differ
TASK_NAMES = {"direction": "forwards or backwards", "labels": "labels"}
FLOW_COLUMNS = (
    ("offset std", ".2f"),
    ("offset std of a tap", ".2f"),
    ("largest offset", ".1f"),
    ("outside", ".0%"),
    ("outside, regular", ".0%"),
    ("flow std Farneback", ".2f"),
    ("r Farneback", ".2f"),
    ("r within places Farneback", ".2f"),
    ("moving r Farneback", ".2f"),
    ("r DIS", ".2f"),
    ("moving r DIS", ".2f"),
    ("branch", ".2f"),
    ("by place", ".0%"),
    ("by place, random weights", ".0%"),
    ("r spread", ".2f"),
    ("r spread, random weights", ".2f"),
    ("r spread within places", ".2f"),
    ("r spread within places, random weights", ".2f"),
)
FLOW_LEGEND = (
    "Lengths in positions of the map; `offset` is the mean over the taps, `outside` the share of sampling points "
    "outside the map, `r` the correlation with the flow, `moving r` where the flow is half a pixel or more, `branch` "
    "the spread of what SIFA adds over that of the features"
)
FLOW_LEGEND_MORE = (
    "`by place` the share of the variance of a tap's offsets that depends on the position in the map alone, `r spread` "
    "the correlation of the spread of the taps with the length of Farneback's flow, `within places` without the mean "
    "at each position, `regular` and `random weights` the same of the regular neighbourhood and of random weights"
)


@dataclass(frozen=True)
class Answers:
    """The answers of the contestants in one task with one stem.

    Args:
        of: contestant -> (seeds, samples): 1 right, 0 wrong, NaN where the network has not been run.
        groups: (samples,) what a bootstrap draws together: the groups in the task direction, else the videos.
        videos: (samples,) their paths.
        splits: their names, in order.
        accuracies: contestant -> for each split the top-1 of its networks, in percent.
        losses: contestant -> training losses of its networks at the end.
    """

    of: dict[str, np.ndarray]
    groups: np.ndarray
    videos: np.ndarray
    splits: list[str]
    accuracies: dict[str, list[list[float]]]
    losses: dict[str, list[float]]

    def seeds(self, contestant: str) -> str:
        """How many networks there are of each split."""
        return ", ".join(str(len(each)) for each in self.accuracies[contestant])


def answers(results: dict[str, Any], task: str, stem: int) -> Answers | None:
    """Gathers the answers; None if there are none."""
    cells = [cell for cell in results["cells"] if (cell["task"], cell["stem"]) == (task, stem)]
    if not cells:
        return None
    splits, seeds = (sorted({cell[name] for cell in cells}) for name in ("split", "seed"))
    described = [results["videos"][f"{task}, {split}"] for split in splits]
    starts = np.cumsum([0, *(len(one["samples"]) for one in described)])
    table: dict[str, np.ndarray] = {}
    accuracies: dict[str, list[list[float]]] = {}
    losses: dict[str, list[float]] = {}
    for cell in cells:
        values = table.setdefault(cell["contestant"], np.full((len(seeds), starts[-1]), np.nan))
        start, right = starts[splits.index(cell["split"])], np.array(list(cell["right"]), dtype=float)
        of_splits = accuracies.setdefault(cell["contestant"], [[] for _ in splits])
        of_splits[splits.index(cell["split"])].append(cell["top-1"])
        losses.setdefault(cell["contestant"], []).append(cell["last losses"])
        values[seeds.index(cell["seed"]), start : start + len(right)] = right
    videos = np.array([sample.removesuffix(" backwards") for one in described for sample in one["samples"]])
    groups = np.array([group for one in described for group in one["groups"]])
    return Answers(table, groups if task == "direction" else videos, videos, splits, accuracies, losses)


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings = results["settings"]
    lines = [
        "# Motion in real videos",
        "",
        f"A ResNet of depths {settings['depths']} and width {settings['width']} with one head, clips of "
        f"{settings['frames']} frames of {settings['crop']} x {settings['crop']} pixels, {settings['epochs']} epochs "
        f"of AdamW, batch {settings['batch']}, learning rates {settings['rates']}"
        f"{_how_chosen(settings)}{_time_crop(settings)}. Temporal modules in {', '.join(settings['stages'])}. "
        f"torch {settings['torch']}, CPU. {len(results['cells'])} networks, "
        f"{sum(cell['minutes'] for cell in results['cells']):.0f} minutes of one core.",
        "",
        *_chosen_table(results["chosen"]),
    ]
    for task in TASK_NAMES:
        for stem in (1, 4):
            if gathered := answers(results, task, stem):
                lines += [*_comparison(gathered, task, stem), "", *_verdicts(gathered), ""]
    lines += _flow_section(results["cells"])
    return "\n".join(lines).rstrip() + "\n"


def _time_crop(settings: dict[str, Any]) -> str:
    shares = settings.get("time_crop")
    return f", trained on random parts of {shares[0]} to {shares[1]} of a video" if shares else ""


def _how_chosen(settings: dict[str, Any]) -> str:
    if len(settings["rates"]) == 1:
        return " (not chosen)"
    who = settings.get("chosen with")
    return f" (chosen on held-out groups of the training videos, {f'with {who} for all' if who else 'each its own'})"


def _chosen_table(chosen: dict[str, dict[str, float]]) -> list[str]:
    if not chosen:
        return []
    rows = [
        f"| {key} | {', '.join(f'{rate}: {right:.1f}' for rate, right in of.items())} |" for key, of in chosen.items()
    ]
    return ["| choice of the rate | top-1 on held-out groups of the training videos, % |", "|---|---|", *rows, ""]


def _comparison(gathered: Answers, task: str, stem: int) -> list[str]:
    drawn = "groups of videos" if task == "direction" else "videos"
    lines = [
        f"## Task: {TASK_NAMES[task]}, stem of {stem} frame{'s' if stem > 1 else ''}",
        "",
        f"95 % intervals by bootstrap over {drawn} and seeds; one seed says nothing about how seeds differ. The "
        f"difference from {REFERENCE} and McNemar's test (majority of the seeds) are of the runs that both have. "
        f"Splits: {', '.join(gathered.splits)}.",
        "",
        "| in SIFA's place | videos | seeds of each split | top-1 of each, % | training loss | top-1, % "
        f"| 95 % interval | minus {REFERENCE} | 95 % interval | right alone: it, {REFERENCE} | p (McNemar) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, values in gathered.of.items():
        seen = ~np.isnan(values)
        mean = bootstrap_mean(100 * values, gathered.groups)
        each = ", ".join(f"{np.mean(of):.1f}" if of else "-" for of in gathered.accuracies[name])
        row = f"| {name} | {len(set(gathered.videos[seen.any(0)]))} | {gathered.seeds(name)} | {each} "
        row += f"| {np.mean(gathered.losses[name]):.2f} | {mean.value:.1f} | {_span(mean)} |"
        lines.append(row + _difference(gathered, values, name))
    return lines


def _difference(gathered: Answers, values: np.ndarray, name: str) -> str:
    """The columns that compare a contestant with the reference, on the runs and videos that both have."""
    difference = None if name == REFERENCE else difference_of(gathered, name, REFERENCE)
    if difference is None:
        return " | | | |"
    one, other = values, gathered.of[REFERENCE]
    both = ~np.isnan(one) & ~np.isnan(other)
    one, other = (np.where(both, side, np.nan) for side in (one, other))
    compared = both.any(0)
    test = mcnemar(*(np.nanmean(side[:, compared], axis=0) > 0.5 for side in (one, other)))
    return f" {difference.value:+.1f} | {_span(difference)} | {test.only_first}, {test.only_second} | {test.p:.3f} |"


def difference_of(gathered: Answers, one: str, other: str) -> Interval | None:
    """How much better one contestant is than another, on the runs and videos that both have; None if there are none."""
    if one not in gathered.of or other not in gathered.of:
        return None
    sides = gathered.of[one], gathered.of[other]
    both = ~np.isnan(sides[0]) & ~np.isnan(sides[1])
    if not both.any():
        return None
    first, second = (100 * np.where(both, side, np.nan) for side in sides)
    return bootstrap_difference(second, first, gathered.groups)


def _verdicts(gathered: Answers) -> list[str]:
    """Whether the paper's order is found again."""
    rows = []
    for better, worse in CLAIMS:
        difference = difference_of(gathered, better, worse)
        if difference is not None:
            paper = PAPER[better] - PAPER[worse]
            networks = min(len(gathered.losses[name]) for name in (better, worse))
            rows.append(
                f"| {better} over {worse} | {paper:+.1f} | {difference.value:+.1f} | {_span(difference)} "
                f"| {verdict(difference, networks)} |"
            )
    if not rows:
        return []
    return [
        "The paper's order (Kinetics-400, one stage) next to this one. Confirmed or denied: the interval is on one "
        f"side of zero; open: it is not, or there are less than {NETWORKS_OF_A_VERDICT} networks of each, of other "
        "seeds or splits. Intervals are not corrected for their number.",
        "",
        "| the paper says | its difference | here | 95 % interval | verdict |",
        "|---|---|---|---|---|",
        *rows,
    ]


def verdict(difference: Interval, networks: int) -> str:
    """What an interval says of the claim that the difference is positive.

    Args:
        networks: that there are of both at least.
    """
    if networks < NETWORKS_OF_A_VERDICT:
        return f"open ({networks} network{'s' if networks != 1 else ''})"
    if not difference.excludes(0):
        return "open"
    return "confirmed" if difference.value > 0 else "denied"


def _span(interval: Interval) -> str:
    return f"{interval.low:.1f} to {interval.high:.1f}"


def flow_table(modules: dict[str, list[dict[str, Any]]], head: str) -> list[str]:
    """The lines of a table of learned offsets and optical flow, and before it what the columns mean.

    Args:
        modules: the first cells of a row, such as "res3 block 2", and what `offsets_and_flow` says of that module in
            one or more networks.
        head: the heads of these cells.
    """
    known = [
        (name, form) for name, form in FLOW_COLUMNS if any(name in e for entries in modules.values() for e in entries)
    ]
    legend = f"{FLOW_LEGEND}, {FLOW_LEGEND_MORE}." if ("by place", ".0%") in known else f"{FLOW_LEGEND}."
    names = [*head.split(" | "), "map", *(name for name, _ in known)]
    lines = [legend, "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for cells, entries in modules.items():
        height, width = entries[0]["map"]
        columns = " | ".join(_average(entries, name, form) for name, form in known)
        lines.append(f"| {cells} | {height} x {width} | {columns} |")
    return lines


def _flow_section(cells: Sequence[dict[str, Any]]) -> list[str]:
    modules: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        for module, entry in cell["offsets"].items():
            row = f"{TASK_NAMES[cell['task']]} | {cell['stem']} | {cell['contestant']} | {module}"
            modules.setdefault(row, []).append(entry)
    if not modules:
        return []
    legend, *table = flow_table(modules, "task | stem | network | module")
    title = "## Learned offsets and optical flow"
    return [title, "", f"On test clips, means over the networks of a row. {legend}", *table]


def _average(entries: Sequence[dict[str, Any]], name: str, form: str) -> str:
    values = [entry[name] for entry in entries if entry.get(name) is not None]
    return format(float(np.mean(values)), form) if values else "-"
