"""Draw small videos of eight kinds of motion, to train on where there is no data set.

    python -m tools.make_demo_videos OUT_DIR [--train 60] [--val 20] [--size 96] [--frames 24] [--seed 0]

They go to OUT_DIR/train/CLASS/*.mp4 and OUT_DIR/val/CLASS/*.mp4: textured things before a textured background that move
left, right, up or down, turn one way or the other, grow or shrink. No single frame tells the class; why is explained in
datasets/preparation/demo_videos.py.

The same seed gives the same videos. Exit code: 0, or 2 if the arguments are wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import cli
from common.errors import UserError
from datasets.preparation.demo_videos import MOTIONS, SPLITS, write_demo_videos


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return cli.run(partial(_draw, _parse(argv)))


def _draw(args: argparse.Namespace) -> None:
    _check(args)
    counts = {split: getattr(args, split) for split in SPLITS}
    write_demo_videos(args.out_dir, counts, size=args.size, frames=args.frames, seed=args.seed, workers=args.workers)
    shown = " and ".join(f"{count} {split}" for split, count in counts.items())
    cli.say(f"{args.out_dir}: {shown} videos of each of {len(MOTIONS)} classes")


def _check(args: argparse.Namespace) -> None:
    limits = {"train": (1, 9999), "val": (1, 9999), "size": (32, 1024), "frames": (2, 1000), "workers": (1, 4096)}
    for name, (low, high) in (limits | {"seed": (0, 2**63)}).items():
        cli.check_range(f"--{name}", getattr(args, name), low, high)
    if args.size % 2:
        raise UserError(f"--size must be even, as the video format wants it, got {args.size}")
    if args.out_dir.exists() and not args.out_dir.is_dir():
        raise UserError(f"OUT_DIR must be a folder, {args.out_dir} is a file")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.make_demo_videos", __doc__)
    add = parser.add_argument
    add("out_dir", type=Path, metavar="OUT_DIR")
    add("--train", type=int, default=60, help="training videos of each class (default: %(default)s)")
    add("--val", type=int, default=20, help="validation videos of each class (default: %(default)s)")
    add("--size", type=int, default=96, help="of the square frames, in pixels (default: %(default)s)")
    add("--frames", type=int, default=24, help="of each video (default: %(default)s)")
    add("--seed", type=int, default=0, help="another seed, other videos (default: %(default)s)")
    cli.add_workers_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
