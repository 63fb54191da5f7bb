"""Tables of learned offsets next to the optical flow, from what benchmarks/motion_flow.py measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np

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


def _average(entries: Sequence[dict[str, Any]], name: str, form: str) -> str:
    values = [entry[name] for entry in entries if entry.get(name) is not None]
    return format(float(np.mean(values)), form) if values else "-"
