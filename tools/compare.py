"""Compare two trained networks on the same videos: which is better, how sure that is, and where they differ.

    python -m tools.compare output/A output/B [--out compare.html] [--json FILE] [--csv FILE]

A and B are folders of runs with scores.npz (of train_val_3d.py --test or --then_test), such files, or folders of
tools.seeds, whose runs are taken together. Videos are paired by their path. Printed are both accuracies with 95 %
intervals, the difference with the bootstrap's interval over videos (and runs), McNemar's exact test of two single runs,
the classes that gained and lost, and the settings that differ. --out writes the same as a page, --json all figures,
--csv the classes. Exit code: 0, or 2 after an error.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import cli
from common.files import make_folder, write_text
from sifa.comparison import class_table, compare, comparison_tables, read_runs
from sifa.tables import as_csv, as_page, as_text


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return cli.run(partial(_compare, _parse(argv)))


def _compare(args: argparse.Namespace) -> None:
    result = compare(read_runs(args.first), read_runs(args.second))
    tables = comparison_tables(result)
    cli.say(as_text(tables))
    texts = {
        args.out: as_page(f"{args.first} and {args.second}", tables),
        args.json: json.dumps(result.as_dict(), indent=1, ensure_ascii=False) + "\n",
        args.csv: as_csv(class_table(result)),
    }
    for file, text in texts.items():
        if file:
            make_folder(file.parent)
            write_text(file, text)
            cli.say(file)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.compare", __doc__)
    add = parser.add_argument
    add("first", type=Path, metavar="A", help="a run, its scores.npz, or a folder of tools.seeds")
    add("second", type=Path, metavar="B", help="likewise")
    add("--out", type=Path, metavar="FILE.html", help="page to write")
    add("--json", type=Path, metavar="FILE", help="all figures")
    add("--csv", type=Path, metavar="FILE", help="the classes that gained and lost")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
