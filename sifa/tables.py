"""Results as titled tables, which a command prints and a page shows."""

import csv
import io
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from common.errors import printable
from visualization.report import STYLE


class Table(NamedTuple):
    """A titled table.

    title: its heading; empty for none.
    header: names of the columns; the first column is text, the others are numbers or short texts.
    rows: cells.
    note: sentences below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def as_text(tables: Sequence[Table], most: int = 20) -> str:
    """Tables for a terminal, of each the first `most` rows."""
    return "\n\n".join(printable("\n".join(_lines(table, most))) for table in tables)


def _lines(table: Table, most: int) -> Iterator[str]:
    if table.title:
        yield table.title
    shown = [list(map(_cell, row)) for row in table.rows[:most]]
    cells = [list(table.header), *shown]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]
    for row in cells if any(table.header) else shown:
        first, *others = zip(row, widths, strict=True)
        yield "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]).rstrip()
    if len(table.rows) > most:
        yield f"... and {len(table.rows) - most} more"
    if table.note:
        yield textwrap.fill(table.note, 100)


def _cell(text: str) -> str:
    return " ".join(text.split())


def as_page(title: str, tables: Sequence[Table]) -> str:
    """The tables as a page of HTML that needs no other file."""
    parts = [
        f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>',
        f"<h1>{escape(title)}</h1>",
    ]
    for table in tables:
        heading = f"<h2>{escape(table.title)}</h2>" if table.title else ""
        header = "".join(f"<th>{escape(name)}</th>" for name in table.header)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows)
        note = f"<p>{escape(table.note)}</p>" if table.note else ""
        parts.append(f"{heading}<table><tr>{header}</tr>\n{rows}</table>{note}")
    return "\n".join([*parts, "</html>\n"])


def as_csv(table: Table) -> str:
    """A table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([table.header, *table.rows])
    return text.getvalue()
