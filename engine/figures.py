"""The figures of a run in output_dir: metrics.jsonl, the same as metrics.csv, and a curve of them as text."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import atomic_write, write_text
from engine.run_dir import FIGURES, FIGURES_TABLE

Figures = dict[str, Any]  # epoch, split, videos, loss, top1, ...; of a training also learning rate and speed
_BARS = "▁▂▃▄▅▆▇█"
_LONGEST = 60  # bars of a curve


def read_figures(folder: Path) -> list[Figures]:
    """The lines of metrics.jsonl in their order; none if there is no such file. Incomplete lines are left out."""
    file = folder / FIGURES
    rows: list[Figures] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            values = json.loads(line)
            _ = values["epoch"] + 0, values["split"] + ""
        except (ValueError, KeyError, TypeError):
            continue  # the run was killed while it wrote this line
        rows.append(values)
    return rows


def add_figures(folder: Path, values: Figures) -> None:
    """Adds a line to metrics.jsonl, and a row to metrics.csv."""
    with open(folder / FIGURES, "a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")
    _write_table(folder, read_figures(folder))


def replace_figures(folder: Path, rows: Sequence[Figures]) -> None:
    """Writes both files with these rows alone."""
    with atomic_write(folder / FIGURES) as file:
        file.write("".join(f"{json.dumps(row)}\n" for row in rows).encode())
    _write_table(folder, rows)


def _write_table(folder: Path, rows: Sequence[Figures]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(folder / FIGURES_TABLE, text.getvalue())


def validation_curve(rows: Sequence[Figures]) -> str:
    """Top-1 of the validations so far as a line of bars, with the best; empty if there are not two of them.

    The bars go from the lowest to the highest value. Of many validations the last ones are drawn.
    """
    points = [(row["epoch"], row["top1"]) for row in rows if row["split"] == "val"]
    if len(points) < 2:
        return ""
    values = [top1 for _, top1 in points]
    low, span = min(values), max(values) - min(values)
    bars = [_BARS[round((top1 - low) / span * (len(_BARS) - 1)) if span else 0] for top1 in values]
    best, epoch = max((top1, -epoch) for epoch, top1 in points)
    return f"validation top-1 so far  {''.join(bars[-_LONGEST:])}  {low:.1f} to {best:.1f}, best after epoch {-epoch}"
