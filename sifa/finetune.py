"""Fine-tuning to new classes: its settings file, and its output directory, which a stopped training continues in."""

import csv
import io
import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from common.errors import UserError
from common.files import make_folder, table_cell, write_text
from datasets.annotations import Video, format_classes
from datasets.preparation.sources import Source
from datasets.readers import Format
from engine.checkpoint import checkpoint_file
from engine.config import load_config
from engine.schema import Config
from engine.scores import Scores
from models import Network
from sifa.finetune_videos import SplitRow
from sifa.flat_settings import default_settings, flat_settings
from sifa.predictor import Predictor

SETTINGS = "settings.yml"  # in the output directory
_WITHOUT_EFFECT = ("dataset.num_workers", "evaluation.eva_inter_freq")  # on what is trained
RECIPE = Path(__file__).resolve().parents[1] / "settings/finetune.yml"
ITERATIONS, EPOCHS = 1000, (20, 100)  # the epochs make about so many iterations, within these limits
POINTS = 10  # of the curve: validations of a training
SPAN, LONGEST_SPAN = 2 / 3, 64  # of a clip: share of the median training video; frames at most
DIRECTIONS = re.compile(r"left|right|clockwise", re.IGNORECASE)


class FinetuneFolder:
    """Output directory of a fine-tuning. Once the training has begun, what it depends on must not change.

    Args:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.has_training = (path / "checkpoints/last.pth").is_file()

    def open(self, videos: Sequence[Source], classes: Sequence[str]) -> None:
        """Makes the directory and writes classes.txt.

        Raises:
            UserError: it cannot be written to, or has a training of other videos or classes.
        """
        make_folder(self.path)
        if self.has_training:
            self._check_videos(videos)
        self.write_once("classes.txt", format_classes(classes))

    def _check_videos(self, videos: Sequence[Source]) -> None:
        file = self.path / "videos.csv"
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as stream:
                trained = {(row["path"], row["label"]) for row in csv.DictReader(stream)}
            if trained != {(table_cell(video.path), table_cell(video.label)) for video in videos}:
                raise self._other_training(file.name)

    def write_once(self, name: str, text: str) -> None:
        """Writes a file that the training depends on.

        Raises:
            UserError: it cannot be written, or the training has begun with another content.
        """
        file = self.path / name
        if self.has_training and file.is_file() and file.read_text(encoding="utf-8") != text:
            raise self._other_training(name)
        try:
            write_text(file, text)
        except OSError as error:
            raise UserError(f"{file} cannot be written: {error.strerror}") from None

    def write_settings(self, text: str) -> None:
        """Writes settings.yml; a training that has begun keeps its own.

        Raises:
            UserError: it cannot be written, or the training has begun with other settings. The message names the keys.
        """
        file = self.path / SETTINGS
        if not (self.has_training and file.is_file()):
            self.write_once(SETTINGS, text)
            return
        before, now = (flat_settings(yaml.safe_load(some)) for some in (file.read_text(encoding="utf-8"), text))
        # These sections are written whole, so a key that is missing did not exist: it has its default.
        network = {key: value for key, value in default_settings().items() if key.startswith(("network.", "SIFA."))}
        before = {key: network[key] for key in now if key in network} | before
        names = [name for name in now | before if before.get(name) != now.get(name) and name not in _WITHOUT_EFFECT]
        if names:
            changes = ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)
            epochs = now.get("optimization.epochs")
            longer = f"; these and --set optimization.epochs={epochs} train it to epoch {epochs}"
            raise UserError(
                f"{self.path} holds a training with other settings ({changes}): the options of before continue it"
                f"{longer if 'optimization.epochs' in names else ''}; for another training give another --out, or "
                f"remove {self.path / 'checkpoints'}"
            )

    def _other_training(self, name: str) -> UserError:
        return UserError(
            f"{self.path} holds a training of other videos or options ({name} would change): give another "
            f"--out, or remove {self.path / 'checkpoints'} to train from the start"
        )

    def format(self) -> Format | None:
        """What a training that has begun reads; None if none has."""
        file = self.path / SETTINGS
        if not (self.has_training and file.is_file()):
            return None
        return flat_settings(yaml.safe_load(file.read_text(encoding="utf-8"))).get("dataset.format")

    def write_split(self, rows: Sequence[SplitRow]) -> None:
        """Writes videos.csv. Raises UserError as `write_once`."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([SplitRow._fields, *(map(table_cell, row) for row in rows)])
        self.write_once("videos.csv", text.getvalue())

    def write_lists(self, rows: Sequence[SplitRow], frames: Mapping[str, Video]) -> list[int]:
        """Writes train.txt and val.txt.

        Args:
            rows: the split.
            frames: the lines of the lists by the path of the video.

        Returns:
            The number of frames of each training video.
        """
        for split in ("train", "val"):
            videos = [frames[row.path] for row in rows if row.split == split]
            lines = [f"{video.path} {video.num_frames} {video.label}\n" for video in videos]
            write_text(self.path / f"{split}.txt", "".join(lines))
        return [frames[row.path].num_frames for row in rows if row.split == "train"]


def finetune_settings(
    predictor: Predictor,
    *,
    checkpoint: Path,
    name: str,
    out: Path,
    classes: Sequence[str],
    lengths: Sequence[int],
    format: Format = "FRAME",
    root: Path,
    epochs: int | None = None,
) -> str:
    """The settings file of a fine-tuning: settings/finetune.yml with the network and clips of a checkpoint.

    Args:
        predictor: of the checkpoint.
        checkpoint: file.
        name: of the data set.
        out: output directory, with the frames and lists.
        classes: names of the classes.
        lengths: number of frames of each training video.
        format: of what is trained from.
        root: of the videos or frames.
        epochs: None: by the number of videos.
    """
    # A settings file is used from other folders, too.
    out, weights = out.absolute(), checkpoint_file(checkpoint).absolute()
    start, optimization = predictor.config, _optimization(predictor.model, len(lengths), epochs)
    transform = {"crop_size": start.transform.crop_size}
    if direction_classes(classes):
        transform["horizontal_flip"] = False
    other_run = {"pretrained_model", "imagenet_weights", "release_weights", "dropout_ratio"}
    values: dict[str, Any] = {
        "base": str(RECIPE),  # absolute: `out` may be behind a symbolic link
        "output_dir": str(out),
        "dataset": {
            "name": name,
            "root_path": str(root.absolute()),
            "list_file": str(out / "train.txt"),
            "eva_list_file": str(out / "val.txt"),
            "classes_file": str(out / "classes.txt"),
            "num_classes": len(classes),
            "format": format,
            **start.dataset.model_dump(include={"num_segments", "clip_length"}),
            "num_steps": clip_step(start, lengths),
            "num_workers": max(1, min((os.cpu_count() or 1) - 1, 8)),
        },
        "transform": transform,
        "evaluation": {
            "eva_crop_size": start.evaluation.eva_crop_size,
            "eva_inter_freq": max(1, optimization["epochs"] // POINTS),
        },
        "network": start.network.model_dump(exclude=other_run) | {"pretrained_model": str(weights)},
        "SIFA": start.SIFA.model_dump(),
        "optimization": optimization,
    }
    return f"# Written by tools/finetune.py.\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}"


def _optimization(network: Network, videos: int, epochs: int | None) -> dict[str, Any]:
    batch_size = min(8, videos)
    epochs = epochs or min(max(round(ITERATIONS / (videos // batch_size)), EPOCHS[0]), EPOCHS[1])
    section: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "freeze": [f"{name}.*" for name in network.body()],
        "freeze_epochs": max(1, epochs // 10),
    }
    if epochs == 1:  # the warm-up of the recipe takes one epoch
        section["warmup_epoch"] = 0
    return section


def clip_step(config: Config, lengths: Sequence[int]) -> int:
    """The step between the frames of a clip, for videos of these lengths.

    The step of the checkpoint is not taken: its videos had another speed and length.
    """
    span = min(SPAN * median(lengths), LONGEST_SPAN)
    return max(1, round(span / config.dataset.num_segments / config.dataset.clip_length))


def direction_classes(classes: Sequence[str]) -> list[str]:
    """The classes whose names tell a direction, so that a horizontal flip of a clip may change its class."""
    return [name for name in classes if DIRECTIONS.search(name)]


def frame_side(config: Config) -> int:
    """The short side of extracted frames in pixels: 8/7 of the larger crop."""
    return round(max(config.transform.crop_size, config.evaluation.eva_crop_size) * 8 / 7)


def result(scores: Scores, out: Path) -> str:
    """The accuracy with its interval, where the checkpoint is, and the next command, as text."""
    videos, hits = len(scores.videos), int((scores.ranks(scores.of_all_views()) == 0).sum())
    low, high = scores.interval(hits)
    return (
        f"{100 * hits / videos:.1f} % of {videos} validation videos are right: the 95 % interval of so many is "
        f"{low:.1f} to {high:.1f} %, chance is {100 / len(scores.classes):.1f} %\n"
        f"checkpoint: {out / 'checkpoints/last.pth'}\n"
        f"next: python -m tools.predict VIDEO --checkpoint {shlex.quote(str(out))}"
    )


def parse_settings(text: str, changes: Sequence[str]) -> Config:
    """The configuration of a settings file and the changes of --set.

    Raises:
        ConfigError: they are no valid configuration.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.yml"
        write_text(file, text)
        return load_config(file, list(changes))
