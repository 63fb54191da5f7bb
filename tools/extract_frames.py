"""Make the list of videos that training reads, and decode them to frames.

    python -m tools.extract_frames VIDEO_DIR OUT_DIR --list LIST.txt

The sub-folders of VIDEO_DIR are the classes, unless --labels says them. Labels
are numbered in sorted order; classes.txt next to the list gets their names. If
it exists, its numbers are used. The list counts frames that really decoded.

A killed run continues with the same command. What was extracted with the same
settings is not decoded again. Other settings, or other videos of the same
names, are refused. docs/data.md explains formats, label files and the report.

Exit code: 0; 1 if a video was skipped (a line says why, the list has the
others); 2 if the arguments are wrong; 130 if interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

if not __package__:  # run as a file: the project's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import cli
from common.errors import DataError
from datasets.preparation.batch_extraction import ExtractionOptions, extract_dataset
from datasets.readers import FORMATS


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return cli.run(partial(_extract, args), interrupted="interrupted; the same command continues where it stopped")


def _extract(args: argparse.Namespace) -> int:
    _check(args)
    options = ExtractionOptions(**vars(args))
    summary = extract_dataset(options)
    if summary.usable:
        print(
            f"{options.list_file}: {summary.usable} videos, {summary.frames} frames, {summary.classes} classes",
        )
    if skipped := summary.wanted - summary.usable:
        rest = "" if summary.usable else f"; none is left, so {options.list_file} was not written"
        print(f"{skipped} of {summary.wanted} videos skipped{rest}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The fields of `ExtractionOptions`."""
    usage = "--list LIST.txt [...] VIDEO_DIR OUT_DIR"
    parser = cli.parser("python -m tools.extract_frames", __doc__, usage=usage)
    add = parser.add_argument
    add("video_dir", type=Path, metavar="VIDEO_DIR")
    add("out_dir", type=Path, metavar="OUT_DIR")
    add("--list", dest="list_file", type=Path, required=True, metavar="LIST.txt", help="the list to write (required)")
    add("--labels", type=Path, metavar="FILE", help="label file: CSV, Kinetics, UCF101, HMDB51, ...")
    add("--where", action="append", default=[], metavar="COL=A,B", help="rows of --labels, != for others; repeatable")
    add("--fold", type=int, default=1, metavar="N", help="of HMDB51's split files, 1 to 3 (default: 1)")
    add("--classes", dest="classes_file", type=Path, metavar="FILE", help="class names (default: classes.txt)")
    add("--format", choices=FORMATS, default="FRAME", metavar="NAME", help=f"{', '.join(FORMATS)} (default: FRAME)")
    add("--short_side", type=int, default=256, metavar="N", help="pixels; 0: as in the video (default: 256)")
    add("--quality", type=int, default=95, metavar="N", help="of the JPEG files, 1 to 100 (default: 95)")
    add("--fps", type=float, default=0, metavar="N", help="frames a second of the result (default: all)")
    add("--num_frames", type=int, default=0, metavar="N", help="frames of each result, evenly spaced (default: all)")
    add("--min_frames", type=int, default=1, metavar="N", help="shorter videos are skipped (default: 1)")
    add("--keep_videos", action="store_true", help="SHARDS: the video files in place of frames")
    add("--shard_gb", type=float, metavar="N", help="of a file (default: 32 PACKED, 0.25 SHARDS)")
    add("--report", type=Path, metavar="FILE", help="of problems (default: LIST.report.tsv)")
    cli.add_workers_option(parser)
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    if not args.video_dir.is_dir():
        raise DataError(f"VIDEO_DIR must be a folder, {args.video_dir} is none")
    if args.list_file.is_dir():
        raise DataError(f"--list must be a file, {args.list_file} is a folder")
    if args.where and not args.labels:
        raise DataError("--where selects rows of --labels, which is not given")
    if args.fps and args.num_frames:
        raise DataError("--fps and --num_frames exclude each other")
    if args.keep_videos and args.format != "SHARDS":
        raise DataError(f"--keep_videos needs --format SHARDS, got {args.format}")
    if (args.format == "VIDEO" or args.keep_videos) and (args.fps or args.num_frames):
        what = "--keep_videos" if args.keep_videos else "VIDEO"
        raise DataError(f"--fps and --num_frames need frames: {what} reads the files as they are")
    limits = [("short_side", 0, 65535), ("workers", 1, 4096), ("quality", 1, 100), ("fold", 1, 3), ("fps", 0, 1000)]
    limits += [("num_frames", 0, 99999), ("min_frames", 1, 10**9), ("shard_gb", 0, 10000)]
    for name, low, high in limits:
        if (value := getattr(args, name)) is not None:
            cli.check_range(f"--{name}", value, low, high)


if __name__ == "__main__":
    sys.exit(main())
