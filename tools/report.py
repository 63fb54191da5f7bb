"""Make a page of scores: accuracy of the middle view and of all, every class, confusions, the worst videos.

    python -m tools.report output/NAME [--out FOLDER] [--worst 12]

The scores are scores.npz of the run, which train_val_3d.py --test writes; the path may be that of the file. FOLDER, by
default that of the scores, gets report.html, which needs no other file, and its two pictures confusion.png
and classes.png. The confusion matrix is printed too. Frames of the worst videos come from the folder that the scores
name; where they are missing, the page says so. Exit code: 0, or 2 after an error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common import cli
from common.errors import UserError
from engine.scores import load_scores
from sifa.report import write_report
from visualization.score_summary import confusion_table


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("python -m tools.report", __doc__)
    parser.add_argument("scores", type=Path, metavar="RUN", help="folder of a run with scores.npz, or that file")
    parser.add_argument("--out", type=Path, help="folder (default: that of the scores)")
    parser.add_argument("--worst", type=int, default=12, help="videos to show (default: %(default)s)")
    args = parser.parse_args(argv)
    return cli.run(lambda: report(args))


def report(args: argparse.Namespace) -> None:
    """Prints the confusion matrix, writes the page and prints its path."""
    if args.worst < 0:
        raise UserError(f"--worst must be at least 0, got {args.worst}")
    scores = load_scores(args.scores)
    cli.say(confusion_table(scores))
    own = args.scores if args.scores.is_dir() else args.scores.parent
    cli.say(write_report(scores, args.out or own, worst=args.worst, run=own))


if __name__ == "__main__":
    sys.exit(main())
