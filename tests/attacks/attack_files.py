"""The whole files that attacks damage: a checkpoint, videos, stores of frames, settings."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml

from tests.tiny import SETTINGS, moving_square, write_checkpoint, write_video
from tools import extract_frames

Command = Callable[[], int | None]
FORMATS = ("FRAME", "LMDB", "PACKED", "SHARDS")
#: Of the files of a store, those that hold frames or say where they are.
STORE_SUFFIXES = (".jpg", ".mdb", ".lmdb", ".tar", ".json")


@dataclass(frozen=True)
class Files:
    """Files that no attack changes: each copies what it damages.

    Args:
        films: one for each container.
        stores: root of the frames by format. lists: of their videos.
        settings: sections of settings_file.
    """

    checkpoint: Path
    safetensors: Path
    video: Path
    films: list[Path]
    videos: Path
    stores: dict[str, Path]
    lists: dict[str, Path]
    settings: dict[str, Any]
    settings_file: Path


def make_files(folder: Path) -> Files:
    """Writes all of them into a folder."""
    checkpoint = write_checkpoint(folder / "last.pth")
    model = torch.load(checkpoint, weights_only=True)["model"]
    safetensors.torch.save_file({name: value.contiguous() for name, value in model.items()}, folder / "m.safetensors")
    videos = folder / "videos"
    films = [write_video(folder / "a.avi", moving_square(12))]
    for number, name in enumerate(("a/one.avi", "a/two.avi", "b/three.avi")):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(videos / name, moving_square(6, 24, 32, number))
    stores, lists = {}, {}
    for format in FORMATS:
        stores[format], lists[format] = folder / format.lower(), folder / f"{format}.txt"
        arguments = [str(videos), str(stores[format]), f"--list={lists[format]}", f"--format={format}", "--workers=1"]
        assert extract_frames.main(arguments) == 0
    settings = {**SETTINGS, "optimization": {"epochs": 3, "base_learning_rate": 0.01}, "logging": {"print_freq": 1}}
    settings_file = folder / "settings.yml"
    settings_file.write_text(yaml.safe_dump(settings))
    shutil.copy(films[0], folder / "b.mkv")
    return Files(checkpoint, folder / "m.safetensors", films[0], films, videos, stores, lists, settings, settings_file)
