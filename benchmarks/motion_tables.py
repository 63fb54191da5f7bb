"""Tables of benchmarks/real_motion.py, from the answers that it kept."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.motion_cells import EVERYONE
from benchmarks.motion_flow_tables import flow_table
from engine.statistics import Interval, bootstrap_difference, bootstrap_mean, mcnemar, mean_of_runs

REFERENCE = "SIFA"  # that the others are compared with
SLOW = "SIFA, offsets learn at a tenth"  # in the paper all weights learn at one rate; the same claims are asked of it
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
    SLOW: 75.4,
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
    ("SIFA_C", "2D network"),
    ("temporal shift", "2D network"),
    ("temporal convolution", "2D network"),
    ("temporal difference", "2D network"),
    ("correlation", "2D network"),
)
#: Options that make another form of a contestant; without one that is not here it is another contestant.
CHANGES = ("branch_scale", "cosine", "projection", "offset_rate", "offset_init")
DRAWN_TOGETHER = "drawn together"  # setting of a study of labels: the column whose values a bootstrap draws
NETWORKS_OF_A_VERDICT = 5  # of seeds or of splits; with less the interval knows too little of how trainings differ
NETWORKS_OF_A_GAIN = 4  # an interval of fewer pairs is too wide to say anything
TASK_NAMES = {"direction": "forwards or backwards", "labels": "labels"}


@dataclass(frozen=True)
class Answers:
    """The answers of the contestants in one task with one stem.

    Args:
        of: contestant -> (seeds, samples): 1 right, 0 wrong, NaN where the network has not been run.
        groups: (samples,) what a bootstrap draws together: the groups in the task direction or if the study says so,
            else the videos.
        videos: (samples,) their paths.
        splits: their names, in order.
        parts: the samples of each split.
        accuracies: contestant -> for each split the top-1 of its networks, in percent.
        losses: contestant -> training losses of its networks at the end.
    """

    of: dict[str, np.ndarray]
    groups: np.ndarray
    videos: np.ndarray
    splits: list[str]
    parts: list[slice]
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
    starts = np.cumsum([0, *(len(one["samples"]) for one in described)]).tolist()
    parts = [slice(start, end) for start, end in itertools.pairwise(starts)]
    table: dict[str, np.ndarray] = {}
    accuracies: dict[str, list[list[float]]] = {}
    losses: dict[str, list[float]] = {}
    for cell in cells:
        values = table.setdefault(cell["contestant"], np.full((len(seeds), starts[-1]), np.nan))
        split = splits.index(cell["split"])
        of_splits = accuracies.setdefault(cell["contestant"], [[] for _ in splits])
        of_splits[split].append(cell["top-1"])
        losses.setdefault(cell["contestant"], []).append(cell["last losses"])
        values[seeds.index(cell["seed"]), parts[split]] = np.array(list(cell["right"]), dtype=float)
    videos = np.array([sample.removesuffix(" backwards") for one in described for sample in one["samples"]])
    groups = np.array([group for one in described for group in one["groups"]])
    drawn = groups if task == "direction" or results["settings"].get(DRAWN_TOGETHER) else videos
    return Answers(table, drawn, videos, splits, parts, accuracies, losses)


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
                for section in (comparison(gathered, task, stem), verdicts(gathered), gains(gathered)):
                    lines += [*section, ""] if section else []
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


def comparison(gathered: Answers, task: str, stem: int) -> list[str]:
    """The table of the contestants, with a title, as lines of Markdown."""
    drawn, compared = "videos", f"difference from {REFERENCE} and McNemar's test (majority of the seeds) are"
    if _draws_groups(gathered):
        drawn, compared = "groups of videos", f"difference from {REFERENCE} is"
    lines = [
        f"## Task: {TASK_NAMES[task]}, stem of {stem} frame{'s' if stem > 1 else ''}",
        "",
        f"95 % intervals by bootstrap over {drawn} and seeds; one seed says nothing about how seeds differ. The "
        f"{compared} of the runs that both have. Splits: {', '.join(gathered.splits)}.",
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
        row += f"| {np.mean(gathered.losses[name]):.2f} | {mean.value:.1f} | {span(mean)} |"
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
    p = "-" if _draws_groups(gathered) else f"{test.p:.3f}"  # the test takes each answer for independent
    return f" {difference.value:+.1f} | {span(difference)} | {test.only_first}, {test.only_second} | {p} |"


def _draws_groups(gathered: Answers) -> bool:
    """Whether several answers are of one group, such as those of a clip and its reverse, of one speaker."""
    return len(set(gathered.groups)) < len(gathered.groups)


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


def difference_of_networks(gathered: Answers, one: str, other: str) -> Interval:
    """The same as a mean over pairs of networks of one split and seed, with Student's interval over these pairs.

    The bootstrap draws videos, or groups of them, and takes the networks of one seed as they are; here each pair counts
    once, so that trainings which differ make the interval wide.
    """
    differences = 100 * (gathered.of[one] - gathered.of[other])
    pairs = [of_seed[part].mean() for of_seed in differences for part in gathered.parts]
    return mean_of_runs([float(pair) for pair in pairs if not np.isnan(pair)])


def verdicts(gathered: Answers) -> list[str]:
    """Whether the paper's order is found again."""
    rows = []
    for better, worse in [*CLAIMS, *_claims_of_slow_offsets()]:
        difference = difference_of(gathered, better, worse)
        if difference is not None:
            of_networks = difference_of_networks(gathered, better, worse)
            networks = min(len(gathered.losses[name]) for name in (better, worse))
            rows.append(
                f"| {better} over {worse} | {PAPER[better] - PAPER[worse]:+.1f} | {difference.value:+.1f} "
                f"| {span(difference)} | {span(of_networks)} | {verdict([difference, of_networks], networks)} |"
            )
    if not rows:
        return []
    return [
        "The paper's order (Kinetics-400, one stage) next to this one. Confirmed or denied: both intervals are on "
        "one side of zero, that by bootstrap as above, and Student's over pairs of networks of one split and seed; "
        f"open: one is not, or there are less than {NETWORKS_OF_A_VERDICT} networks of each. Intervals are not "
        "corrected for their number.",
        "",
        "| the paper says | its difference | here | 95 % interval | that of networks | verdict |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _claims_of_slow_offsets() -> list[tuple[str, str]]:
    claims = [claim for claim in CLAIMS if REFERENCE in claim]
    return [(SLOW, worse) if better == REFERENCE else (better, SLOW) for better, worse in claims]


def gains(gathered: Answers) -> list[str]:
    """What a change of a contestant gives: each form minus the one without."""
    rows = []
    for form, plain in itertools.permutations([name for name in EVERYONE if name in gathered.of], 2):
        options, fewer = EVERYONE[form], EVERYONE[plain]
        is_change = fewer.items() < options.items() and {*options} - {*fewer} <= {*CHANGES}
        difference = difference_of(gathered, form, plain) if is_change else None
        if difference is not None:
            fewest = min(len(gathered.losses[name]) for name in (form, plain))
            networks = span(difference_of_networks(gathered, form, plain)) if fewest >= NETWORKS_OF_A_GAIN else "-"
            rows.append(f"| {form} | {plain} | {difference.value:+.1f} | {span(difference)} | {networks} |")
    if not rows:
        return []
    head = "| a form | minus | difference | 95 % interval | that of networks |"
    title = "What a change gives; intervals by bootstrap, and Student's over pairs of networks of one split and seed."
    return [title, "", head, "|---|---|---|---|---|", *rows]


def verdict(intervals: Sequence[Interval], networks: int) -> str:
    """What intervals of one difference say of the claim that it is positive.

    Args:
        networks: that there are of both at least.
    """
    if networks < NETWORKS_OF_A_VERDICT:
        return f"open ({networks} network{'s' if networks != 1 else ''})"
    if not all(interval.excludes(0) for interval in intervals):
        return "open"
    return "confirmed" if intervals[0].value > 0 else "denied"


def span(interval: Interval) -> str:
    """Its ends; - without limits."""
    return f"{interval.low:.1f} to {interval.high:.1f}" if math.isfinite(interval.low) else "-"


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
