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
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.motion_data import (
    Sample,
    Split,
    Task,
    Video,
    add_video_arguments,
    inner_split,
    read_chosen_videos,
    splits_of,
    test_clip,
)
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
    "the last frame and the mean of all": lambda clips: np.stack([clips[:, -1], clips.mean(1)], 1),
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
    add_video_arguments(parser)
    return cli.run(partial(_measure, parser.parse_args(argv)))


def _measure(args: argparse.Namespace) -> None:
    videos = read_chosen_videos(args, short_side=4 * SIDE)
    for task in args.tasks:
        splits = splits_of(task, videos)
        cli.say(f"\n| task {task}, top-1 in % | {' | '.join(split.name for split in splits)} | mean |")
        cli.say(f"|---|{'---|' * len(splits)}---|")
        pictures = pictures_of(splits, videos)
        for name in tqdm(READ_OUTS, desc=task, leave=False):
            figures = [accuracy(name, task, split, videos, pictures) for split in splits]
            cells = [f"{figure:.1f}" for figure in (*figures, float(np.mean(figures)))]
            cli.say(f"| {name} | {' | '.join(cells)} |")


def pictures_of(splits: Sequence[Split], videos: Sequence[Video]) -> dict[Sample, np.ndarray]:
    """Grey pictures (FRAMES, SIDE * SIDE) in [0, 1] of what a network would be tested with, for each sample."""
    samples = {sample for split in splits for sample in (*split.train, *split.test)}
    return {sample: _pictures(test_clip(sample, videos, frames=FRAMES, crop=4 * SIDE)) for sample in samples}


def _pictures(clip: np.ndarray) -> np.ndarray:
    small = np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in clip])
    return small.mean(-1).reshape(FRAMES, SIDE * SIDE) / 255


def accuracy(
    name: str, task: Task, split: Split, videos: Sequence[Video], pictures: Mapping[Sample, np.ndarray]
) -> float:
    """Top-1 in percent of a read-out on the test samples of a split."""
    inner = inner_split(split, videos) if task == "direction" else _random_fifth(split)
    tried = _right(name, inner, pictures, PENALTIES)
    return _right(name, split, pictures, [PENALTIES[int(np.argmax(tried))]])[0]


def _random_fifth(split: Split) -> Split:
    """The training samples of a split, a fifth of them held out."""
    order = np.random.default_rng(0).permutation(len(split.train))
    held, kept = ([split.train[i] for i in part] for part in np.split(order, [len(order) // 5]))
    return Split(f"{split.name}, inner", kept, held)


def _right(name: str, split: Split, pictures: Mapping[Sample, np.ndarray], penalties: Sequence[float]) -> list[float]:
    """Top-1 in percent on the test samples with each penalty."""
    train, test = (np.stack([pictures[sample] for sample in side]) for side in (split.train, split.test))
    if name in OF_COMPONENTS:
        axes = _components(train)
        train, test = ((clips - clips.mean(1, keepdims=True)) @ axes for clips in (train, test))
    features, asked = (READ_OUTS[name](clips).reshape(len(clips), -1) for clips in (train, test))
    centre = features.mean(0)
    features, asked = features - centre, asked - centre
    classes, expected = (np.array([sample.label for sample in side]) for side in (split.train, split.test))
    targets = np.where(classes[:, None] == np.arange(classes.max() + 1), 1.0, -1.0)
    mean = targets.mean(0)
    kernel = features @ features.T
    found = []
    for penalty in penalties:
        ridge = penalty * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
        answers = asked @ (features.T @ np.linalg.solve(kernel + ridge, targets - mean)) + mean
        found.append(100 * float(np.mean(answers.argmax(1) == expected)))
    return found


def _components(clips: np.ndarray) -> np.ndarray:
    """The main axes (P, COMPONENTS) of the pictures' differences from their clip's mean."""
    moved = (clips - clips.mean(1, keepdims=True)).reshape(-1, clips.shape[-1])
    return np.linalg.eigh(moved.T @ moved)[1][:, -COMPONENTS:]


if __name__ == "__main__":
    sys.exit(main())
