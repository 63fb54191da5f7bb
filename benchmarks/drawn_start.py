"""A network that has seen drawn motion, as a start for a few hundred real videos: drawn, stored, trained and tested.

    python -m benchmarks.drawn_start [--videos 1000] [--epochs 12] [--seed 0] [--out output/drawn_start]

OUT/seed_0/checkpoints/last.pth is the start, for `network.pretrained_model` or `python -m benchmarks.recipe_modules
--starts`. The videos are those of benchmarks/drawn_motion.py; ten of each class, which are not trained on, say what the
network knows. It is trained with settings/small_videos_sifa.yml. The same command continues; another start needs
another --out.

With the numbers above it takes about two hours of one core. docs/real_videos.md has what such starts gave, under
"A start from drawn motion".
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.drawn_motion import CLASSES, draw_all
from benchmarks.recipe_modules import SETTINGS
from common import cli
from common.errors import UserError
from common.files import make_folder, write_text
from datasets.preparation.batch_extraction import ExtractionOptions, extract_dataset
from engine.config import as_change, load_config
from sifa.seeds import SeedOptions, run_seeds

SIZE, FRAMES = 72, 24  # of the videos
TESTED = 10  # videos of each class
DRAWN = "drawn.txt"  # says which videos are there


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m benchmarks.drawn_start", __doc__)
    parser.add_argument("--videos", type=int, default=1000, help="of each class, to train on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of videos and training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("output/drawn_start"), help="default: %(default)s")
    cli.add_set_option(parser)
    return cli.run(partial(make_start, parser.parse_args(argv)), interrupted="interrupted; the same command continues")


def make_start(args: argparse.Namespace) -> int:
    """Draws, stores, trains and tests; returns the exit code.

    Raises:
        UserError: the settings are wrong, or --out has other videos, or a training with other settings.
    """
    cli.check_range("--videos", args.videos, 1, 9000)
    cli.check_range("--seed", args.seed, 0, 2**32 - 1)
    settings = _settings(args)
    load_config(str(SETTINGS), settings)  # a mistake in them is said at once
    _draw(args)
    for split in ("train", "test"):
        extract_dataset(
            ExtractionOptions(
                video_dir=args.out / "videos" / split,
                out_dir=args.out / "frames" / split,
                list_file=args.out / f"{split}.txt",
                classes_file=args.out / "classes.txt",
                format="PACKED",
                workers=cli.cores(),
            )
        )
    options = SeedOptions(str(SETTINGS), args.out, [args.seed], settings)
    if not run_seeds(options, cli.say):
        cli.say(f"the start: {options.folder(args.seed)}/checkpoints/last.pth")
        return 0
    return 1


def _draw(args: argparse.Namespace) -> None:
    """Draws the videos of both splits; those that are there stay."""
    described = f"seed {args.seed}, {args.videos} + {TESTED} videos of {FRAMES} x {SIZE} x {SIZE} of each class\n"
    drawn = args.out / DRAWN
    if drawn.is_file() and (before := drawn.read_text(encoding="utf-8")) != described:
        raise UserError(f"{args.out} has other videos ({before.strip()}): give another --out")
    make_folder(args.out)
    write_text(drawn, described)
    numbers = range(args.videos + TESTED)
    for split, chosen in (("train", numbers[: args.videos]), ("test", numbers[args.videos :])):
        draw_all(args.out / "videos" / split, chosen, size=SIZE, frames=FRAMES, seed=args.seed, keep=True)


def _settings(args: argparse.Namespace) -> list[str]:
    files = {
        "dataset.root_path": "frames/train",
        "dataset.list_file": "train.txt",
        "dataset.eva_root_path": "frames/test",
        "dataset.eva_list_file": "test.txt",
        "dataset.classes_file": "classes.txt",
    }
    return [
        *("transform.time_crop=[0.9,1.0]", "optimization.weight_decay=0.01", f"optimization.epochs={args.epochs}"),
        *args.set,
        *(as_change(key, args.out / file) for key, file in files.items()),
        *("dataset.format=PACKED", f"dataset.num_classes={len(CLASSES)}"),
    ]


if __name__ == "__main__":
    sys.exit(main())
