"""From nothing to a trained network and a picture of what it looks at, in about two minutes on two processor cores.

    bash make.sh demo [--seed N]        installs what is needed, builds the op, then runs:
    python -m tools.demo [--seed N]

It draws videos of eight kinds of motion (data/demo), trains a narrow SIFA-Net on them as settings/demo.yml says, tests
it on 200 videos that it has never seen, and writes a report and pictures (output/demo). At the end it prints the time
of each part: on the clock, and of the processor. An earlier output/demo is replaced. Exit code: 0; 2 after an error.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sifa
from common import cli
from common.errors import UserError
from datasets.preparation.batch_extraction import ExtractionOptions, extract_dataset
from datasets.preparation.demo_videos import MOTIONS, SPLITS, write_demo_videos
from engine.scores import load_scores
from sifa.finetune import result
from sifa.picture_files import write_picture
from sifa.report import write_report
from sifa.viewer import Viewer
from visualization.score_summary import confusion_table

DATA, OUT, SETTINGS = Path("data/demo"), Path("output/demo"), "settings/demo.yml"
COUNTS = {"train": 100, "val": 25}  # videos of each class
SHOWN = DATA / "videos/val/rotate_clockwise/0002.mp4"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    return cli.run(lambda: demo(args), interrupted="interrupted; the same command starts again")


def demo(args: argparse.Namespace) -> None:
    """All parts, one after another."""
    if not Path(SETTINGS).is_file():
        raise UserError(f"there is no {SETTINGS} here: run the demo in the folder of the project")
    cli.check_range("--seed", args.seed, 0, 2**32 - 1)
    clock = Clock(args.before)
    with clock.part("videos", f"drawing {len(MOTIONS)} kinds of motion, {COUNTS['train']} videos of each to train on"):
        write_demo_videos(DATA / "videos", COUNTS, size=96, frames=24, seed=args.seed, workers=cli.cores())
    with clock.part("lists", "listing them: path, number of frames, class"):
        list_videos()
    with clock.part("training", "training a narrow SIFA-Net, and testing it on videos that it has never seen"):
        train(args.seed)
    with clock.part("report and pictures", "writing a report, and what the network looks at"):
        write_pages()
    cli.say(closing(clock))


def list_videos() -> None:
    """Writes the lists of both splits and the names of the classes. Training decodes the videos themselves."""
    shutil.rmtree(DATA / "records", ignore_errors=True)  # an earlier demo's, perhaps where this folder was before
    for split in SPLITS:
        extract_dataset(
            ExtractionOptions(
                video_dir=DATA / "videos" / split,
                out_dir=DATA / "records" / split,
                list_file=DATA / f"{split}.txt",
                classes_file=DATA / "classes.txt",
                format="VIDEO",
                workers=cli.cores(),
            )
        )


def train(seed: int) -> None:
    """Trains in one process, on the GPU if there is one. Raises UserError if it fails."""
    command = [sys.executable, "train_val_3d.py", f"--config_file={SETTINGS}", "--then_test", f"--seed={seed}"]
    shutil.rmtree(OUT, ignore_errors=True)
    if code := subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode:
        raise UserError(f"the training ended with exit code {code}, see above")


def write_pages() -> None:
    """Writes the report, and picture and page of what the network looks at in a video."""
    write_report(load_scores(OUT / "scores.npz"), OUT)
    viewer = Viewer(sifa.load(OUT / "checkpoints/last.pth", num_clips=1, num_crops=1), SHOWN)
    start, t = viewer.strongest_moment()
    write_picture(OUT / "attention.png", viewer.picture(start, t))
    (OUT / "attention.html").write_text(viewer.page(start, t), encoding="utf-8")


def closing(clock: "Clock") -> str:
    """What came out, where it is, how long it took, and how to go on."""
    scores = load_scores(OUT / "scores.npz")
    accuracy = result(scores, OUT).splitlines()[0]
    python = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    return f"""
{confusion_table(scores)}
{accuracy}

checkpoint    {OUT}/checkpoints/last.pth
report        {OUT}/report.html
the picture   {OUT}/attention.png: what the network looks at in {SHOWN}
the page      {OUT}/attention.html: the same, to explore
curves        {python} -m tensorboard.main --logdir {OUT}/tensorboard

{clock.table()}

To go on: ask the network about videos, look at another one, teach it classes of your own (docs/own_videos.md):
  {python} -m tools.predict '{DATA}/videos/val/**/*.mp4' --checkpoint {OUT}
  {python} -m tools.visualize {DATA}/videos/val/grow/0003.mp4 --checkpoint {OUT} --out film.mp4
  {python} -m tools.finetune VIDEO_FOLDER --checkpoint {OUT}"""


class Clock:
    """The time of each part.

    Args:
        before: parts that are done, as `name=seconds`.
    """

    def __init__(self, before: Sequence[str]) -> None:
        self.rows = [(name, float(seconds or 0), "") for name, _, seconds in (part.rpartition("=") for part in before)]

    @contextmanager
    def part(self, name: str, title: str) -> Iterator[None]:
        """Prints the title, and measures what follows."""
        print(f"\n== {title}", flush=True)
        began, used = time.monotonic(), sum(os.times()[:4])
        yield
        self.rows.append((name, time.monotonic() - began, f"{sum(os.times()[:4]) - used:.0f} s of the processor"))

    def table(self) -> str:
        rows = [*self.rows, ("in all", sum(seconds for _, seconds, _ in self.rows), "")]
        return "\n".join(f"{name:<26}{seconds:4.0f} s  {used}".rstrip() for name, seconds, used in rows)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.demo", __doc__)
    parser.add_argument("--seed", type=int, default=0, help="of videos and training (default: %(default)s)")
    parser.add_argument("--before", nargs="*", default=[], metavar="NAME=SECONDS", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
