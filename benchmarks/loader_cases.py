"""What the loader is measured on and against: videos as frames, recipes, the release's transforms on Pillow."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.pictures import natural_clip
from benchmarks.pillow import RECIPES, clip_of, on_pictures
from common.errors import DataError
from datasets import ClipDataset, FrameFolder, normalise, train_transform, transforms, val_transform


@dataclass
class Clips:
    """The first frames of some videos, and the recipes that make clips of them.

    Attributes:
        root: folder of the frames, with a folder for each video.
        list_file: names the videos.
        frames: of a clip.
        crop: its height and width in pixels.
    """

    root: Path
    list_file: Path
    frames: int
    crop: int

    def transform(self, recipe: str) -> transforms.Transform:
        return val_transform(self.crop) if recipe == "validation" else train_transform(self.crop, **RECIPES[recipe])

    def dataset(self, recipe: str) -> ClipDataset:
        return ClipDataset(
            self.list_file,
            self.root,
            num_classes=1,
            num_segments=1,
            clip_length=self.frames,
            num_steps=1,
            transform=self.transform(recipe),
            train=recipe != "validation",
        )

    def videos(self) -> list[str]:
        return [line.rsplit(" ", 2)[0] for line in self.list_file.read_text().splitlines()]


def write_clips(folder: Path, videos: int, frames: int, height: int, width: int) -> None:
    """Draws videos and writes each as a folder of JPEG files of quality 90."""
    for video in range(videos):
        (folder / f"{video}").mkdir(parents=True)
        for number, frame in enumerate(natural_clip(frames, height, width, seed=video), start=1):
            data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            (folder / f"{video}" / f"{number:05d}.jpg").write_bytes(data.tobytes())


def write_list(root: Path, list_file: Path, frames: int) -> None:
    """Lists the videos that have at least `frames` frames.

    The list gives each of them a length of `frames`, so that every random position is the first frame.

    Raises:
        DataError: no video is long enough.
    """
    reader = FrameFolder(root)
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    lines = [f"{name} {frames} 0\n" for name in names if reader.count(name) >= frames]
    if not lines:
        raise DataError(f"{root} has no folder with {frames} frames 00001.jpg, ...")
    list_file.write_text("".join(lines))


def contestants(clips: Clips) -> dict[str, Callable[[int], object]]:
    """Functions that make clip number i.

    The loader's have the recipe's name, the reference's are "RECIPE, Pillow"; "decoding alone" makes no clip.
    """
    videos = clips.videos()
    files = {video: [clips.root / video / f"{i + 1:05d}.jpg" for i in range(clips.frames)] for video in videos}
    data = {video: [np.fromfile(file, dtype=np.uint8) for file in files[video]] for video in videos}

    def decode(i: int) -> None:
        for encoded in data[videos[i % len(videos)]]:
            cv2.imdecode(encoded, cv2.IMREAD_COLOR)

    found: dict[str, Callable[[int], object]] = {"decoding alone": decode}
    for recipe in RECIPES:
        dataset, pillow = clips.dataset(recipe), on_pictures(recipe, clips.crop)

        def by_loader(i: int, dataset: ClipDataset = dataset) -> torch.Tensor:
            return normalise(dataset[i % len(videos), i // len(videos)][0][None])

        def by_pillow(i: int, pillow: Callable = pillow) -> torch.Tensor:
            return normalise(clip_of(files[videos[i % len(videos)]], pillow, i)[None])

        found |= {recipe: by_loader, f"{recipe}, Pillow": by_pillow}
    return found


def agreement(clips: Clips, count: int) -> dict[str, tuple[float, float, float, float, float]]:
    """Compares `count` frames of each recipe with the reference's, made with the same random draws.

    Returns:
        In grey levels, for each recipe: mean and standard deviation of the loader's values, those of the reference's,
        and the mean absolute difference of a value.
    """
    reader, videos = FrameFolder(clips.root), clips.videos()
    found = {}
    for recipe in RECIPES:
        transform, pillow = clips.transform(recipe), on_pictures(recipe, clips.crop)
        figures = []
        for i in range(count):
            video = videos[i % len(videos)]
            torch.manual_seed(i)
            got = transform(reader.read(video, [0])).astype(np.float32)
            expected = clip_of([clips.root / video / "00001.jpg"], pillow, i).numpy().astype(np.float32)
            figures.append((got.mean(), got.std(), expected.mean(), expected.std(), np.abs(got - expected).mean()))
        found[recipe] = tuple(np.mean(figures, axis=0).tolist())
    return found
