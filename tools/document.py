"""Bring up to date what docs/ says twice: tables of configuration keys and of the paper's rows, the picture of rooms.

    python -m tools.document [--check]

docs/configuration.md has its tables from engine/schema.py; docs/paper.md from the headers of those files of settings/
that have a figure of the paper; docs/architecture.md its picture from the imports in the source. The text around the
markers is written by hand. --check changes nothing and ends with exit code 1 if a page is out of date.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from common import cli
from common.errors import UserError
from common.files import write_text
from engine.schema_tables import schema_tables
from sifa.documents.import_graph import rooms_picture
from sifa.documents.paper_tables import paper_tables

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- made by tools/document.py -->\n", "<!-- end -->\n"
PAGES: dict[str, Callable[[], str]] = {
    "docs/configuration.md": schema_tables,
    "docs/paper.md": partial(paper_tables, ROOT / "settings"),
    "docs/architecture.md": partial(rooms_picture, ROOT),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m tools.document", __doc__)
    parser.add_argument("--check", action="store_true", help="only say which pages are out of date")
    return cli.run(partial(_update, parser.parse_args(argv)))


def _update(args: argparse.Namespace) -> int:
    stale = 0
    for name, generate in PAGES.items():
        path = ROOT / name
        page = path.read_text(encoding="utf-8")
        wanted = replace_generated(page, generate())
        if page == wanted:
            continue
        if args.check:
            print(f"{name} is out of date: python -m tools.document", file=sys.stderr)
            stale = 1
        else:
            write_text(path, wanted)
            cli.say(f"{name} is up to date now")
    return stale


def replace_generated(page: str, generated: str) -> str:
    """The page with another text between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"the page must have the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{generated}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
