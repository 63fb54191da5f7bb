"""Videos, splits and clips of benchmarks/real_motion.py: all frames in memory, one draw of a crop for a whole clip."""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.errors import UserError
from datasets.normalisation import normalise
from datasets.sampling import test_positions, train_positions
from datasets.video_files import VideoFiles

Task = Literal["direction", "labels"]
TASKS: tuple[Task, ...] = ("direction", "labels")
INNER_GROUPS = 2  # groups of the training videos that hyper-parameters are chosen on
FOLDS = 5


@dataclass(frozen=True)
class Video:
    """A video, in memory: uint8 (T, H, W, 3), RGB, and what the labels file says about it."""

    path: str
    label: str
    group: str
    part: str
    frames: np.ndarray


@dataclass(frozen=True)
class Sample:
    """A video, played forwards or backwards, and its class."""

    video: int
    reversed: bool
    label: int


@dataclass(frozen=True)
class Split:
    """What is trained on and what is tested on. The test samples of all splits of a task are different ones."""

    name: str
    train: list[Sample]
    test: list[Sample]


# ---- Videos ---------------------------------------------------------------------------------------------------------


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command on the videos of the study: which they are, and the tasks."""
    parser.add_argument("videos", type=Path, help="folder that the paths of the labels file are relative to")
    parser.add_argument("--labels", type=Path, help="CSV (default: labels.csv in the folder)")
    parser.add_argument("--group", default="speaker", help="column (default: %(default)s)")
    parser.add_argument("--part", default="repetition", help="column; empty: none (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", default=["1", "2"], help="values of it that are read (default: 1 2)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))


def read_chosen_videos(args: argparse.Namespace, *, short_side: int) -> list[Video]:
    """The videos that the arguments of `add_video_arguments` name; see `read_videos`."""
    labels = args.labels or args.videos / "labels.csv"
    return read_videos(args.videos, labels, group=args.group, part=args.part, parts=args.parts, short_side=short_side)


def read_videos(
    folder: Path, labels: Path, *, group: str, part: str, parts: Sequence[str], short_side: int
) -> list[Video]:
    """Reads all videos of a labels file.

    Args:
        folder: that the paths of the labels file are relative to.
        labels: CSV with the columns path, label and those named by `group` and `part`.
        group: column whose values never are in training and test at once in the task "direction", such as a speaker.
        part: column that splits the task "labels", such as the number of a repetition; empty: none.
        parts: the values of that column that are used; rows with other values are not opened.
        short_side: to which frames are resized, in pixels.

    Raises:
        UserError: a file or a column is missing.
        DataError: a video does not decode.
    """
    needed = f"path, label, {group}" + (f", {part}" if part else "")
    if not folder.is_dir() or not labels.is_file():
        missing = folder if not folder.is_dir() else labels
        raise UserError(
            f"{missing} does not exist: the study needs a folder of short videos on which motion decides, and a CSV "
            f"file with the columns {needed}"
        )
    with open(labels, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or any(not rows[0].get(column) for column in needed.split(", ")):
        raise UserError(f"{labels} must have the columns {needed} and a row for each video")
    if part:
        rows = [row for row in rows if row[part] in parts]
    if not rows:
        raise UserError(f"{labels} has no row whose {part} is one of {', '.join(parts)}")
    reader = VideoFiles(folder)
    videos = []
    for row in tqdm(rows, desc="videos", unit="video", leave=False, delay=5):
        frames = reader.read(row["path"], range(reader.count(row["path"])))
        scaled = _resize(frames, short_side)
        videos.append(Video(row["path"], row["label"], row[group], row[part] if part else "", scaled))
    return videos


def _resize(frames: np.ndarray, short_side: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    scale = short_side / min(height, width)
    size = max(round(width * scale), short_side), max(round(height * scale), short_side)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, size, interpolation=method) for frame in frames])


# ---- Splits ---------------------------------------------------------------------------------------------------------


def classes_of(task: Task, videos: Sequence[Video]) -> list[str]:
    return ["forward", "backward"] if task == "direction" else sorted({video.label for video in videos})


def splits_of(task: Task, videos: Sequence[Video]) -> list[Split]:
    """The splits of a task: five folds of groups for "direction", one for each part for "labels".

    Raises:
        UserError: there are too few groups or parts.
    """
    if task == "direction":
        groups = sorted({video.group for video in videos})
        if len(groups) < FOLDS:
            raise UserError(f"the task direction needs {FOLDS} groups at least, got {len(groups)}")
        held = {f"fold {i + 1}": set(groups[i::FOLDS]) for i in range(FOLDS)}
        return [_split(name, task, videos, [v.group in test for v in videos]) for name, test in held.items()]
    parts = sorted({video.part for video in videos})
    if len(parts) < 2:
        raise UserError(f"the task labels needs two parts of the videos at least, got {len(parts)}")
    return [_split(f"tested on {part}", task, videos, [v.part == part for v in videos]) for part in parts]


def inner_split(split: Split, videos: Sequence[Video]) -> Split:
    """The training samples of a split, some groups of them held out: what hyper-parameters are chosen on."""
    groups = sorted({videos[sample.video].group for sample in split.train})
    if len(groups) <= INNER_GROUPS:
        raise UserError(f"hyper-parameters need more than {INNER_GROUPS} groups to train on, got {len(groups)}")
    held = set(groups[-INNER_GROUPS:])
    train = [sample for sample in split.train if videos[sample.video].group not in held]
    return Split(f"{split.name}, inner", train, [s for s in split.train if videos[s.video].group in held])


def _split(name: str, task: Task, videos: Sequence[Video], held: Sequence[bool]) -> Split:
    train, test = (
        [sample for i in range(len(videos)) if held[i] == side for sample in _samples(task, videos, i)]
        for side in (False, True)
    )
    return Split(name, train, test)


def _samples(task: Task, videos: Sequence[Video], index: int) -> list[Sample]:
    if task == "direction":
        return [Sample(index, False, 0), Sample(index, True, 1)]
    return [Sample(index, False, classes_of(task, videos).index(videos[index].label))]


# ---- Clips ----------------------------------------------------------------------------------------------------------


def train_batch(
    samples: Sequence[Sample],
    videos: Sequence[Video],
    *,
    frames: int,
    crop: int,
    time_crop: tuple[float, float] | None = None,
    both_directions: bool = False,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Clips (N, 3, frames, crop, crop) with random frames of equal segments, crop and contrast; and their classes.

    With `both_directions`, for samples that run forwards, the same clips backwards follow, of the class 1: 2N clips.
    """
    clips = []
    for sample in samples:
        video = videos[sample.video].frames
        positions = train_positions(
            len(video), num_segments=frames, clip_length=1, num_steps=1, time_crop=time_crop, generator=generator
        )
        top, left = (_draw_start(size, crop, generator) for size in video.shape[1:3])
        clips.append(_clip(video, positions, top, left, crop, sample.reversed))
    batch = normalise(torch.from_numpy(np.stack(clips)))
    contrast = 1 + 0.4 * (torch.rand(len(clips), 1, 1, 1, 1, generator=generator) - 0.5)
    batch, labels = batch * contrast, torch.tensor([sample.label for sample in samples])
    return (torch.cat([batch, batch.flip(2)]), torch.cat([labels, 1 - labels])) if both_directions else (batch, labels)


def _draw_start(size: int, crop: int, generator: torch.Generator) -> int:
    """Where a crop starts: at most an eighth of its side from the centre, where the clips of the test are."""
    centre = (size - crop) // 2
    reach = min(centre, crop // 8)
    return int(torch.randint(centre - reach, centre + reach + 1, (), generator=generator))


def test_clip(sample: Sample, videos: Sequence[Video], *, frames: int, crop: int) -> np.ndarray:
    """The clip that a sample is tested with: uint8 (frames, crop, crop, 3), the centre of each segment and picture.

    Played backwards it has the same frames: a rule that prefers the start of a segment would tell the direction.
    """
    video = videos[sample.video].frames
    # Two clips would start at the first frame of a segment and in its middle.
    positions = test_positions(len(video), num_segments=frames, clip_length=1, num_steps=1, clip=1, num_clips=2)
    top, left = ((size - crop) // 2 for size in video.shape[1:3])
    return _clip(video, positions, top, left, crop, sample.reversed)


test_clip.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


def some_of(items: Sequence[Any], count: int) -> list[Any]:
    """So many of the items at most, in their order, drawn once: every n-th of a sorted list may be of one person."""
    drawn = np.random.default_rng(0).permutation(len(items))[:count]
    return [items[i] for i in sorted(drawn)]


def to_batch(clips: Sequence[np.ndarray]) -> Tensor:
    """uint8 clips (T, S, S, 3) as a network takes them: (N, 3, T, S, S)."""
    return normalise(torch.from_numpy(np.stack(clips)))


def _clip(video: np.ndarray, positions: Sequence[int], top: int, left: int, crop: int, is_reversed: bool) -> np.ndarray:
    chosen = video[list(positions)][:, top : top + crop, left : left + crop]
    return np.ascontiguousarray(chosen[::-1] if is_reversed else chosen)
