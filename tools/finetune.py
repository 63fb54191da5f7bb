"""Teach a trained network classes of your own, and get a checkpoint and a report.

    python -m tools.finetune VIDEO_FOLDER --checkpoint output/demo

Classes are the sub-folders of VIDEO_FOLDER, or what --labels says. A quarter of
each class's videos is kept to validate on. Videos of one recording stay
together: names that differ only in the number at their end, or see --group.

The classifier is new, and trained alone at first. The training reads the videos
themselves if that is fast enough, or else frames of them. After a stop the same
command continues. docs/own_videos.md tells more, and what is in the folder OUT.

Exit code: 0; 2 after an error; 130 if interrupted.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import sifa
import train_val_3d
from common import cli
from common.errors import DataError, UserError, describe
from engine.scores import load_scores
from sifa.finetune import (
    LONGEST_SPAN,
    SETTINGS,
    FinetuneFolder,
    direction_classes,
    finetune_settings,
    frame_side,
    parse_settings,
    result,
)
from sifa.finetune_source import measure_source
from sifa.finetune_videos import SplitRow, class_names, extract_videos, find_videos, split_text, split_videos
from sifa.report import write_report
from visualization.score_summary import confusion_table


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    return cli.run(lambda: finetune(args), interrupted="interrupted; the same command continues")


def finetune(args: argparse.Namespace) -> int:
    """Everything from the videos to the report; returns the exit code."""
    folder = FinetuneFolder(args.out or Path("output") / Path(os.path.realpath(args.video_dir)).name)
    prepare(args, folder)
    return train(args, folder.path)


def prepare(args: argparse.Namespace, folder: FinetuneFolder) -> None:
    """Writes all that the training needs: frames, lists, settings."""
    if args.epochs is not None and args.epochs < 1:
        raise UserError(f"--epochs must be at least 1, got {args.epochs}")
    cli.check_range("--seed", args.seed, 0, 2**63)
    predictor = sifa.load(args.checkpoint)
    videos = find_videos(args.video_dir, args.labels)
    classes = class_names(videos)
    split = partial(split_videos, group=args.group, validate=args.validate, share=args.share, seed=args.seed)
    settings = partial(
        finetune_settings,
        predictor,
        checkpoint=args.checkpoint,
        name=Path(os.path.realpath(args.video_dir)).name,
        out=folder.path,
        classes=classes,
        epochs=args.epochs,
    )
    # A mistake in the options must end here, not after the videos are read. Their lengths are not known yet.
    planned, _ = split(videos)
    lengths = [LONGEST_SPAN for row in planned if row.split == "train"]
    config = parse_settings(settings(lengths=lengths, format="VIDEO", root=args.video_dir), args.set)
    folder.open(videos, classes)

    side = frame_side(predictor.config)
    frames_as = partial(extract_videos, args.video_dir, folder.path, videos, labels=args.labels, short_side=side)
    format = args.format or folder.format()
    if not format:
        frames_as(format="VIDEO")  # their lengths, which either format needs
        speed = measure_source(predictor, config, folder.path / "videos.txt", args.video_dir)
        cli.say(speed.text())
        format = "VIDEO" if speed.videos_are_fast_enough else "FRAME"
    frames = frames_as(format=format)
    if missing := sorted(set(classes) - {video.label for video in videos if video.path in frames}):
        raise DataError(f"no video of the class {missing[0]!r} can be read")
    rows, unnamed = split([video for video in videos if video.path in frames])
    cli.say(split_text(rows, unnamed))
    skipped = [SplitRow(video.path, video.label, "", "skipped") for video in videos if video.path not in frames]
    if skipped:
        report = folder.path / "videos.report.tsv"
        cli.say(f"{len(skipped)} of {len(videos)} videos cannot be read; {report} says why")
    folder.write_split([*rows, *skipped])
    root = args.video_dir if format == "VIDEO" else folder.path / "frames"
    folder.write_settings(settings(lengths=folder.write_lists(rows, frames), format=format, root=root))
    if directions := direction_classes(classes):
        cli.say(f"The class {directions[0]!r} seems to tell left from right: clips are not flipped.")
    if args.epochs == 1:
        cli.say("In one epoch the new classifier alone is trained: --epochs 2 or more train the network with it.")


def train(args: argparse.Namespace, out: Path) -> int:
    """Trains, validates and writes the report; returns the exit code."""
    changes = ["--set", *args.set] if args.set else []
    run = [f"--config_file={out / SETTINGS}", "--resume=auto", "--then_test", *changes]
    cli.say(f"training: python train_val_3d.py {shlex.join(run)}")
    if code := train_val_3d.main(run):
        return code
    scores = load_scores(out / "scores.npz")
    cli.say(confusion_table(scores))
    try:
        cli.say(f"report: {write_report(scores, out)}")
    except Exception as error:  # the training is done and saved
        print(f"warning: no report: {type(error).__name__}: {describe(error)}", file=sys.stderr)
    cli.say(result(scores, out))
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    usage = "--checkpoint RUN [...] VIDEO_FOLDER"
    parser = cli.parser("python -m tools.finetune", __doc__, usage=usage)
    add = parser.add_argument
    add("video_dir", type=Path, metavar="VIDEO_FOLDER")
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="RUN",
        help="folder of a run to start from, or its file (required)",
    )
    add("--out", type=Path, help="folder (default: output/ and the name of VIDEO_FOLDER)")
    add("--labels", type=Path, metavar="FILE.csv", help="with columns path and label, instead of sub-folders")
    add("--group", default="", metavar="COL|REGEX", help="names recordings: column of --labels, or in file names")
    add("--validate", default="", metavar="A,B", help="recordings to validate on (default: chosen)")
    add("--share", type=float, default=0.25, metavar="N", help="of videos to validate on (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the split (default: %(default)s)")
    add("--epochs", type=int, metavar="N", help="(default: by the number of videos)")
    formats = ("VIDEO", "FRAME", "PACKED", "SHARDS")
    add("--format", choices=formats, metavar="NAME", help=f"{', '.join(formats)} (default: measured)")
    cli.add_set_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
