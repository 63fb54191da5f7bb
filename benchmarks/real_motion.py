"""Does SIFA see motion? A comparison of temporal modules on real videos on which motion decides.

    python -m benchmarks.real_motion VIDEOS [--labels VIDEOS/labels.csv] [--out FOLDER] [--stop-after HOURS]

VIDEOS is a folder of short videos; the labels file is a CSV with the columns path, label, a group that must not be in
training and test at once (--group, such as speaker), and a part that halves the videos (--part, such as repetition).
Written for the letters of AVLetters, of which the study reads the repetitions 1 and 2 alone. Two tasks:

  direction   does the clip run forwards or backwards? Five folds of the groups, each tested once; a network that is
              blind to order gives both the same answer: 50 %; a training step has both directions of its clips
  labels      which label? Trained on one part and tested on the other, and the other way round

What can be told of a task without a network is in benchmarks/motion_readout.py.

Contestants have equal width, depth, epochs, batches, augmentation and schedule, and differ in what stands in SIFA's
place. Each is tried with a stem of one frame, where frames meet in that place alone, and with the paper's stem of four.
With several --rates the learning rate of each contestant is chosen on groups held out of the training videos of each
split, or with --choose-with one rate for all contestants of a split; nothing is chosen on test videos.

results.json, with each answer, is written after each network, and the same command continues. With --seeds 0 it trains
nothing and makes the tables again. At the end, or after --stop-after, real_motion.md and real_motion.png are made of
it: means with 95 % intervals (bootstrap over runs and videos; over groups in the task direction), differences from SIFA
by video (with McNemar's test in the task labels), and what of the paper's ordering is confirmed, denied or open.
Learned offsets are compared with Farneback's and the DIS flow.

A training step takes about 50 ms of one core for each clip of 16 x 96 x 96 with a stem of one frame, a third of that
with the stem of four. So on 520 videos one seed of both tasks and stems takes some 26 hours of one core, and the choice
between two learning rates once some 40. What fits in some hours of two cores is part of it, such as

    python -m benchmarks.real_motion VIDEOS --tasks labels --stems 1 --stages res2 res3 res4 --depths 2 2 2 1 \\
      --frames 8 --crop 80 --batch 8 --epochs 40 --choose-with "2D network" --workers 2 \\
      --contestants "2D network" "temporal shift" SIFA_R SIFA
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.kept_results import keep_videos, read_results, write_results
from benchmarks.motion_cells import CONTESTANTS, EVERYONE, Budget, start_table
from benchmarks.motion_crew import Crew, Trial
from benchmarks.motion_data import Split, Task, Video, add_video_arguments, inner_split, read_chosen_videos, splits_of
from benchmarks.motion_flow import motion_table
from benchmarks.motion_picture import draw
from benchmarks.motion_tables import page
from common import cli
from common.files import make_folder, write_text
from models.temporal import STAGES

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Cell:
    """One network of the study."""

    task: Task
    split: str
    stem: int
    seed: int
    contestant: str

    def is_of(self, entry: dict[str, Any]) -> bool:
        return all(entry[name] == value for name, value in asdict(self).items())


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m benchmarks.real_motion", __doc__)
    add_video_arguments(parser)
    parser.add_argument("--stems", nargs="+", type=int, choices=(1, 4), default=[1, 4], help="frames of the stem")
    names = f"of {'; '.join(EVERYONE)} (default: the first {len(CONTESTANTS)})"
    parser.add_argument(
        "--contestants", nargs="+", choices=EVERYONE, default=list(CONTESTANTS), metavar="NAME", help=names
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", nargs="+", type=float, default=[0.001, 0.003], help="learning rates to choose from")
    parser.add_argument(
        "--choose-with",
        choices=CONTESTANTS,
        metavar="NAME",
        help="choose one rate for all with this contestant (default: each its own)",
    )
    parser.add_argument("--depths", nargs=4, type=int, default=[1, 2, 2, 2], help="bottlenecks of res2..res5")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["res3", "res4", "res5"], help="with modules")
    parser.add_argument("--width", type=int, default=8, help="channels of res2")
    parser.add_argument("--frames", type=int, default=16, help="of a clip")
    parser.add_argument("--crop", type=int, default=96, help="side of a clip in pixels")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument(
        "--time-crop",
        nargs=2,
        type=float,
        metavar="SHARE",
        help="low and high: clips of random parts of a video",
    )
    parser.add_argument("--batch", type=int, default=16, help="clips of a step")
    parser.add_argument("--out", type=Path, default=RESULTS / "real_motion")
    parser.add_argument(
        "--motion",
        action="store_true",
        help="no training: motion on the maps, and how strong modules start",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--stop-after", type=float, metavar="HOURS", help="start no network after this time")
    return cli.run(partial(_study, parser.parse_args(argv)), interrupted="stopped; the same command continues")


def _study(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    time_crop = tuple(args.time_crop) if args.time_crop else None
    budget = Budget(
        tuple(args.depths),
        args.width,
        args.frames,
        args.crop,
        args.epochs,
        args.batch,
        tuple(args.stages),
        time_crop,
    )
    settings = {**asdict(budget), "rates": args.rates, "chosen with": args.choose_with, "parts": args.parts}
    results = read_results(args.out, {**settings, "torch": torch.__version__})
    videos = read_chosen_videos(args, short_side=args.crop * 9 // 8)
    if args.motion:
        cli.say(motion_table(videos, frames=args.frames, crop=args.crop, stems=args.stems))
        cli.say(start_table(videos, budget))
        return
    make_folder(args.out)
    splits = {(task, split.name): split for task in args.tasks for split in splits_of(task, videos)}
    for (task, name), split in splits.items():
        keep_videos(results, f"{task}, {name}", _described(split, videos))
    todo = [cell for cell in _cells(args, splits) if not any(cell.is_of(entry) for entry in results["cells"])]
    with Crew(args.workers, videos, budget, args.stop_after) as crew:
        _choose_rates(todo, args, splits, videos, crew, results)
        _train_cells(todo, args, splits, crew, results)
    write_results(args.out, results)
    write_text(args.out / "real_motion.md", page(results))
    if results["cells"]:
        draw(results, args.out / "real_motion.png")
    cli.say(f"{len(results['cells'])} networks in {args.out}; real_motion.md has the tables")


def _choose_rates(
    todo: Sequence[Cell],
    args: argparse.Namespace,
    splits: dict[tuple[Task, str], Split],
    videos: Sequence[Video],
    crew: Crew,
    results: dict[str, Any],
) -> None:
    """Tries the rates on groups held out of the training videos, once for each split, stem and choosing contestant."""
    wanted = {_choice(cell, args): cell for cell in todo} if len(args.rates) > 1 else {}
    trials = [
        (Trial(cell.task, inner_split(splits[cell.task, cell.split], videos), name, cell.stem, 0, rate), key)
        for key, cell in wanted.items()
        for name in [args.choose_with or cell.contestant]
        for rate in args.rates
        if str(rate) not in results["chosen"].get(key, {})
    ]
    for (trial, key), entry in crew.finished(trials, "choosing rates"):
        results["chosen"].setdefault(key, {})[str(trial.rate)] = entry["top-1"]
        write_results(args.out, results)


def _train_cells(
    todo: Sequence[Cell],
    args: argparse.Namespace,
    splits: dict[tuple[Task, str], Split],
    crew: Crew,
    results: dict[str, Any],
) -> None:
    """Trains what is to do, as far as its rate is chosen, and keeps each result."""
    trials = []
    for cell in todo:
        tried = results["chosen"].get(_choice(cell, args), {})
        if len(args.rates) == 1 or len(tried) == len(args.rates):
            rate = max(args.rates, key=lambda rate: tried.get(str(rate), 0))  # of equal ones the first
            split = splits[cell.task, cell.split]
            trials.append((Trial(cell.task, split, cell.contestant, cell.stem, cell.seed, rate), cell))
    for (trial, cell), entry in crew.finished(trials, "training"):
        if entry["offsets"]:
            _forget_arrows(results["cells"])
        results["cells"].append({**asdict(cell), "rate": trial.rate, **entry})
        write_results(args.out, results)


def _forget_arrows(cells: Sequence[dict[str, Any]]) -> None:
    """Keeps of the offsets their figures alone: the picture draws the newest network, and arrows are 100 kB of each."""
    for cell in cells:
        for module in cell["offsets"].values():
            module.pop("arrows", None)


def _choice(cell: Cell, args: argparse.Namespace) -> str:
    """The key of the choice of a cell's learning rate."""
    return f"{cell.task}, {cell.split}, stem {cell.stem}, {args.choose_with or cell.contestant}"


def _cells(args: argparse.Namespace, splits: dict[tuple[Task, str], Split]) -> Iterator[Cell]:
    """All networks, so that a stop leaves comparisons that are complete: contestants change first, seeds last."""
    for seed, (task, name), stem in itertools.product(range(args.seeds), splits, args.stems):
        for contestant in args.contestants:
            yield Cell(task, name, stem, seed, contestant)


def _described(split: Split, videos: Sequence[Video]) -> dict[str, Any]:
    """How many videos there are, and for each test sample its video and group: the order of the answers."""
    return {
        "training videos": len({sample.video for sample in split.train}),
        "samples": [f"{videos[s.video].path}{' backwards' if s.reversed else ''}" for s in split.test],
        "groups": [videos[sample.video].group for sample in split.test],
    }


if __name__ == "__main__":
    sys.exit(main())
