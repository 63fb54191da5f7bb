"""Check a list file and its videos before they are trained on.

    python -m tools.check_dataset LIST ROOT [--format FRAME] [--decode]

For every line: the video exists and has as many frames as the list says; with
--decode, each frame decodes, and all have one size. For the whole: lines that
cannot be read, videos that are listed twice, classes without a video. With
--against LIST2: videos that are in both lists, by path or by the bytes of
three frames (VIDEO: of the file). docs/data.md tells more, and what is in the
JSON file of --report.

Exit code: 0 if nothing is wrong, 1 if something is (a line each says what), 2
if the arguments are.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from common import cli
from common.errors import DataError, UserError
from common.files import make_folder, write_text
from datasets.preparation.checking import CheckOptions, CheckResult, check_list
from datasets.readers import FORMATS, ReaderOptions
from datasets.shards import CACHE_GB


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return cli.run(partial(_check, **vars(_parse(argv))))


def _check(report: Path | None, **values: Any) -> int:
    reading = {field.name: values.pop(field.name) for field in fields(ReaderOptions) if field.name in values}
    options = CheckOptions(reader_options=ReaderOptions(**reading), **values)
    cli.check_range("--workers", options.workers, 1, 4096)
    if options.num_classes is not None and options.num_classes < 1:
        raise UserError(f"--num_classes must be at least 1, got {options.num_classes}")
    if report:
        _check_report(report)
    result = check_list(options)
    _print(options, result)
    if report:
        write_text(report, json.dumps(result.as_dict(), indent=1, ensure_ascii=False) + "\n")
    return 1 if result.problems else 0


def _check_report(file: Path) -> None:
    """Raises UserError if the report cannot be written: a check of hours would be lost."""
    if file.is_dir():
        raise UserError(f"--report must be a file, {file} is a folder")
    try:
        make_folder(file.parent)
    except DataError as error:
        raise UserError(f"--report {file}: {error}") from None


def _print(options: CheckOptions, result: CheckResult) -> None:
    """Prints a line for each problem, what was checked, and which option may be wrong."""
    for problem in result.problems:
        place = f"{options.list_file}:{problem.line}: {problem.path}" if problem.line else str(options.list_file)
        cli.say(f"{place}: {problem.reason}")
    wrong = f"{len(result.problems)} problems" if result.problems else "nothing wrong"
    cli.say(
        f"{options.list_file}: {result.videos} videos, {result.frames} frames, {len(result.classes)} classes; {wrong}"
    )
    if kind := result.problem_of_all():
        what = {"missing": "is missing", "count": "has another number of frames"}[kind]
        first = "" if options.format == "VIDEO" else f", or --first_frame {options.reader_options.first_frame}"
        cli.say(f"every video {what}: is ROOT {options.root}, or --format {options.format}{first}, right?")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The fields of `CheckOptions` and `ReaderOptions`, and report."""
    parser = cli.parser("python -m tools.check_dataset", __doc__, usage="[...] LIST ROOT")
    add = parser.add_argument
    add("list_file", type=Path, metavar="LIST")
    add("root", metavar="ROOT", help="folder of the videos; for SHARDS a URL, too")
    add("--format", choices=FORMATS, default="FRAME", metavar="NAME", help=f"{', '.join(FORMATS)} (default: FRAME)")
    add("--decode", action="store_true", help="decode every frame")
    add("--classes", dest="classes_file", type=Path, metavar="FILE", help="class names, which labels must be among")
    add("--num_classes", type=int, metavar="N", help="instead of --classes")
    add("--against", type=Path, metavar="LIST2", help="the other split, which must share no video")
    add("--against_root", metavar="ROOT2", help="its root (default: ROOT)")
    add("--report", type=Path, metavar="FILE.json", help="write what was found")
    add("--frame_template", default="", metavar="NAME", help="file name or key of a frame (default: the format's)")
    add("--first_frame", type=int, default=1, metavar="N", help="number of a first frame (default: 1)")
    add("--shard_cache", default="", metavar="DIR", help="for a URL's shards (default: ~/.cache/sifa/shards)")
    add("--shard_cache_gb", type=float, default=CACHE_GB, metavar="N", help="its size (default: %(default)s)")
    cli.add_workers_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
