"""Predictions as text, as values for JSON and as rows of CSV: the most probable classes, a table, a timeline."""

import csv
import io
import itertools
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from common.errors import one_line
from common.files import table_cell
from sifa.windows import Window

_TIMELINE = 60  # marks in a row at most


def top(probabilities: Tensor, classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The most probable classes, each with its name, number and probability, for JSON.

    Args:
        probabilities: (classes,).
        classes: their names.
        count: how many classes at most.
    """
    values, labels = probabilities.topk(min(count, len(classes)))
    return [
        {"class": classes[label], "label": label, "probability": round(value, 6)}
        for value, label in zip(values.tolist(), labels.tolist(), strict=True)
    ]


def top_of_windows(windows: Sequence[Window], classes: Sequence[str], count: int, rate: float) -> list[dict[str, Any]]:
    """Start and end of each window in seconds and its most probable classes, for JSON.

    Args:
        rate: frames per second.
    """
    return [
        {
            "start": round(window.start / rate, 3),
            "end": round(window.end / rate, 3),
            "top": top(window.probabilities, classes, count),
        }
        for window in windows
    ]


CSV_COLUMNS = ["video", "start", "end", "class", "label", "probability", "error"]


def csv_lines(record: dict[str, Any]) -> str:
    """The rows of a video below CSV_COLUMNS, without the last line feed: one for each class of each window, or one.

    Args:
        record: `{"video", "top"}` with the result of `top`, `{"video", "windows"}` with that of `top_of_windows`, or
            `{"video", "error"}`.
    """
    video = {"video": record.get("video", record.get("time"))}
    windows = record.get("windows", [record])
    rows = [video | window | one for window in windows for one in window.get("top", [{}])]
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    for row in rows:
        writer.writerow({name: table_cell(value) if isinstance(value, str) else value for name, value in row.items()})
    return text.getvalue().removesuffix("\n")


def table(best: Sequence[dict[str, Any]]) -> str:
    """A line for each class of `top`: its probability, its name and a bar."""
    names = [one_line(one["class"]) for one in best]
    width = max(map(len, names))
    lines = [
        f"{100 * one['probability']:8.2f} %  {name:<{width}}  {'█' * round(20 * one['probability'])}".rstrip()
        for name, one in zip(names, best, strict=True)
    ]
    return "\n".join(lines)


def timeline(windows: Sequence[Window], classes: Sequence[str], rate: float) -> str:
    """A line for each window with its most probable class; then for each of these classes a row of marks over time.

    Args:
        rate: frames per second.
    """
    leaders = [int(window.probabilities.argmax()) for window in windows]
    names = {leader: one_line(classes[leader]) for leader in leaders}
    width = max(map(len, names.values()))
    lines = [
        f"{_clock(window.start / rate):>9} -{_clock(window.end / rate):>9}  "
        f"{names[leader]:<{width}} {100 * float(window.probabilities[leader]):7.2f} %"
        for window, leader in zip(windows, leaders, strict=True)
    ]
    columns = min(len(windows), _TIMELINE)
    edges = [column * len(windows) // columns for column in range(columns + 1)]
    lines.append("")
    for leader in dict.fromkeys(leaders):
        marks = ("█" if leader in leaders[a:b] else "·" for a, b in itertools.pairwise(edges))
        lines.append(f"  {names[leader]:<{width}}  {''.join(marks)}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{seconds:04.1f}"
