"""What of a task of benchmarks/real_motion.py can be told without a network, and whether that takes motion.

    python -m benchmarks.motion_readout VIDEOS [--labels VIDEOS/labels.csv] [--tasks direction labels]

A linear classifier sees the clips of the networks: the centre of each of 8 equal parts of a video, as grey pictures of
16 x 16. What it is given differs from row to row: one frame; two; all in order; all without their order; or products of
neighbouring frames, summed over the clip, which is the kind of thing that an attention between frames and an average
over time can tell. The penalty of its ridge regression is chosen on a part of the training videos that is held out (of
groups in the task direction, of any in labels, as in the test), and nothing on test videos. Takes a minute of one core.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.motion_data import TASKS, Sample, Split, Task, Video, inner_split, read_videos, splits_of, test_clip
from common import cli

SIDE = 16  # pixels of a picture
FRAMES = 8
COMPONENTS = 20  # of the pictures' differences from their clip's mean, for the products
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # of the ridge regression, times the mean square of a clip's features

#: A read-out's name -> its features of clips (N, T, P), P pixels or components: (N, anything).
READ_OUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the first frame": lambda clips: clips[:, 0],
    "the middle frame": lambda clips: clips[:, clips.shape[1] // 2],
    "the last frame": lambda clips: clips[:, -1],
    "the first and the last frame": lambda clips: clips[:, [0, -1]],
    "the frames between these, in order": lambda clips: clips[:, 1:-1],
    "all frames, in order": lambda clips: clips,
    "all frames, blind to order": lambda clips: np.concatenate([clips.mean(1), clips.std(1)], -1),
    "products of neighbouring frames": lambda clips: np.einsum("nti,ntj->nij", clips[:, :-1], clips[:, 1:]),
}
OF_COMPONENTS = {"products of neighbouring frames"}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m benchmarks.motion_readout", __doc__)
    parser.add_argument("videos", type=Path, help="folder that the paths of the labels file are relative to")
    parser.add_argument("--labels", type=Path, help="CSV (default: labels.csv in the folder)")
    parser.add_argument("--group", default="speaker", help="column (default: %(default)s)")
    parser.add_argument("--part", default="repetition", help="column; empty: none (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", default=["1", "2"], help="values of it that are read (default: 1 2)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    return cli.run(partial(_measure, parser.parse_args(argv)))


def _measure(args: argparse.Namespace) -> None:
    videos = read_videos(
        args.videos,
        args.labels or args.videos / "labels.csv",
        group=args.group,
        part=args.part,
        parts=args.parts,
        short_side=4 * SIDE,
    )
    for task in args.tasks:
        splits = splits_of(task, videos)
        cli.say(f"\n| task {task}, top-1 in % | {' | '.join(split.name for split in splits)} | mean |")
        cli.say(f"|---|{'---|' * len(splits)}---|")
        for name in tqdm(READ_OUTS, desc=task, leave=False):
            figures = [accuracy(name, task, split, videos) for split in splits]
            cells = [f"{figure:.1f}" for figure in (*figures, float(np.mean(figures)))]
            cli.say(f"| {name} | {' | '.join(cells)} |")


def accuracy(name: str, task: Task, split: Split, videos: Sequence[Video]) -> float:
    """Top-1 in percent of a read-out on the test samples of a split."""
    inner = inner_split(split, videos) if task == "direction" else _random_fifth(split)
    tried = {penalty: _right(name, inner, videos, penalty) for penalty in PENALTIES}
    return _right(name, split, videos, max(tried, key=lambda penalty: tried[penalty]))


def _random_fifth(split: Split) -> Split:
    """The training samples of a split, a fifth of them held out."""
    order = np.random.default_rng(0).permutation(len(split.train))
    held, kept = ([split.train[i] for i in part] for part in np.split(order, [len(order) // 5]))
    return Split(f"{split.name}, inner", kept, held)


def _right(name: str, split: Split, videos: Sequence[Video], penalty: float) -> float:
    train, test = _pictures(split.train, videos), _pictures(split.test, videos)
    if name in OF_COMPONENTS:
        axes = _components(train)
        train, test = ((clips - clips.mean(1, keepdims=True)) @ axes for clips in (train, test))
    features, asked = (READ_OUTS[name](clips).reshape(len(clips), -1) for clips in (train, test))
    centre = features.mean(0)
    features, asked = features - centre, asked - centre
    classes = np.array([sample.label for sample in split.train])
    targets = np.where(classes[:, None] == np.arange(classes.max() + 1), 1.0, -1.0)
    kernel = features @ features.T
    ridge = penalty * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    answers = asked @ (features.T @ np.linalg.solve(kernel + ridge, targets - targets.mean(0))) + targets.mean(0)
    return 100 * float(np.mean(answers.argmax(1) == [sample.label for sample in split.test]))


def _pictures(samples: Sequence[Sample], videos: Sequence[Video]) -> np.ndarray:
    """Grey pictures (N, FRAMES, SIDE * SIDE) of what a network would be tested with, in [0, 1]."""
    clips = [test_clip(sample, videos, frames=FRAMES, crop=4 * SIDE) for sample in samples]
    small = [[cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in clip] for clip in clips]
    return np.stack(small).mean(-1).reshape(len(clips), FRAMES, SIDE * SIDE) / 255


def _components(clips: np.ndarray) -> np.ndarray:
    """The main axes (P, COMPONENTS) of the pictures' differences from their clip's mean."""
    moved = (clips - clips.mean(1, keepdims=True)).reshape(-1, clips.shape[-1])
    return np.linalg.eigh(moved.T @ moved)[1][:, -COMPONENTS:]


if __name__ == "__main__":
    sys.exit(main())
