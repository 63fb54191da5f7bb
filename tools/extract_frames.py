"""Decode videos to numbered JPEG frames and write the list file that training reads.

    python -m tools.extract_frames VIDEO_DIR OUT_DIR --list LIST.txt [--short_side 256] [--labels LABELS.csv]

Classes are the sub-folders of VIDEO_DIR, or those of --labels: a CSV file with the columns `path` (relative to
VIDEO_DIR) and `label`, or the label files of Kinetics (CSV), UCF101 (TXT), HMDB51 (folder of split files, --fold) and
Something-Something V1 (CSV; its frame folders) and V2 (JSON). Other columns are ignored unless --where selects by them.
Labels are numbered in sorted order over all of VIDEO_DIR or the whole file, before any selection, and their names are
written to classes.txt next to the list; if that file exists, it is used instead, so that the lists of one data set
agree. Labels that are all whole numbers stay what they are.

--format says what OUT_DIR becomes: FRAME, OUT_DIR/<path of the video without extension>/00001.jpg and so on; LMDB, an
environment in such a folder for every video; PACKED, few LMDB files of --shard_gb with many videos each; SHARDS, tar
files of --shard_gb with an index, to be read from a URL, too (docs/data.md); VIDEO, nothing but records, for lists of
the video files themselves, counted. Videos that differ in the extension alone keep it. The short side is resized to
--short_side pixels; smaller videos are left as they are, as the transforms resize anyway. --fps or --num_frames thins
(or repeats) the frames. Frames that are given in folders are stored as they are; as FRAME they stay
where they are, and the list is relative to VIDEO_DIR.

An OUT_DIR holds one format: another is refused. So are, before anything is written, other settings or videos of another
VIDEO_DIR where OUT_DIR has frames under the same name. A video file that has changed is extracted again.

The frames that the list counts were really decoded, whatever the video announces. What was extracted before with the
same settings is not decoded again, and frames of an interrupted run never count as done. --report, by default next to
the list, is a table of the videos that are missing, unreadable, too short (--min_frames) or incomplete, with reasons.

Exit code: 0 if all is well, 1 if a video had to be skipped (one line each says why; the list holds the others), 2 if
the arguments are wrong, 130 if interrupted.
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
    parser = cli.parser("python -m tools.extract_frames", __doc__)
    where = "only the rows of --labels with one of these values (!= for none of them); may be repeated, all must hold"
    report = "table of problems (default: LIST.report.tsv next to the list)"
    classes = "class names, one a line (default: classes.txt next to the list)"
    add = parser.add_argument
    add("video_dir", type=Path, metavar="VIDEO_DIR")
    add("out_dir", type=Path, metavar="OUT_DIR")
    add("--list", dest="list_file", type=Path, required=True, metavar="LIST.txt", help="the list file to write")
    add("--short_side", type=int, default=256, help="pixels; 0 keeps the size (default: %(default)s)")
    add("--labels", type=Path, metavar="LABELS", help="label file, instead of sub-folders")
    add("--fold", type=int, default=1, help="of HMDB51's split files, 1 to 3 (default: %(default)s)")
    add("--format", choices=FORMATS, default="FRAME", help="of OUT_DIR (default: %(default)s)")
    add("--fps", type=float, default=0, help="frames a second of the result (default: all frames)")
    add("--num_frames", type=int, default=0, help="frames of every result (default: all frames)")
    add("--min_frames", type=int, default=1, help="shorter videos are skipped (default: %(default)s)")
    add("--shard_gb", type=float, help="size of a file (default: 32 for PACKED, 0.25 for SHARDS)")
    add("--report", type=Path, help=report)
    add("--where", action="append", default=[], metavar="COLUMN=V1,V2", help=where)
    add("--classes", dest="classes_file", type=Path, metavar="CLASSES", help=classes)
    add("--keep_videos", action="store_true", help="SHARDS: store the video files as they are, in place of frames")
    cli.add_workers_option(parser)
    add("--quality", type=int, default=95, help="of the JPEG files, 1 to 100 (default: %(default)s)")
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
