"""The published label files of public data sets: Kinetics, UCF101, HMDB51, Something-Something V1 and V2."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import DataError
from datasets.preparation.class_folders import files_below
from datasets.preparation.sources import (
    OTHER_VIDEO_EXTENSIONS,
    VIDEO_EXTENSIONS,
    Source,
    sources_from_csv,
)
from datasets.preparation.tables import read_table, read_text, table_header

_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_HMDB51_FILE = re.compile(r"(?P<label>.+)_test_split(?P<fold>[123])\.txt")
_HMDB51_SPLITS = {"0": "unused", "1": "train", "2": "test"}


def sources_from_labels(labels: Path, video_dir: Path, *, fold: int = 1) -> list[Source]:
    """Reads the videos of a label file, of any of these kinds:

    - CSV with the columns path and label: `sources_from_csv`.
    - CSV with label, youtube_id, time_start, time_end and more: Kinetics. The video is any file below video_dir named
      `ID_000012_000022` or `ID`, with the extension of a video; of several files, the one in a folder of its class.
    - CSV without header, `number;label`: Something-Something V1. The video is video_dir/id, a folder of frames.
    - JSON, a list of objects with id and template: Something-Something V2. The video is video_dir/id.webm.
    - TXT, `Class/video.avi` or `Class/video.avi 1`: UCF101. The class is the folder.
    - a folder of `class_test_split1.txt` files: HMDB51. The videos are video_dir/class/name. The column split is train,
      test or unused.

    A video that occurs twice counts once, with its first label; in a CSV of path and label it is an error.

    Args:
        labels: the file or folder; a relative path may also be one in video_dir.
        video_dir: folder of all videos.
        fold: of HMDB51, 1 to 3; the files of other folds are ignored.

    Returns:
        The videos in the order of the file.

    Raises:
        DataError: there is no such file; it is of another kind or malformed, or names no video.
        OSError: the file cannot be read.
    """
    if not labels.exists():
        if not (video_dir / labels).exists():
            raise DataError(f"there is no file {labels} with labels, neither in the working folder nor in {video_dir}")
        labels = video_dir / labels
    if labels.is_dir():
        sources = list(_read_hmdb51(labels, fold))
    elif labels.suffix.lower() == ".json":
        sources = list(_read_something_v2(labels))
    elif labels.suffix.lower() == ".txt":
        sources = list(_read_ucf101(labels))
    else:
        text = read_text(labels)
        if {"youtube_id", "time_start"} & {*table_header(text, ("youtube_id",))[0], *table_header(text, ())[0]}:
            sources = list(_read_kinetics(labels, video_dir))
        elif re.match(r"\s*[0-9]+;", text):
            sources = list(_read_something_v1(labels))
        else:
            return sources_from_csv(labels)
    if not sources:
        raise DataError(f"{labels} names no video")
    unique: dict[str, Source] = {}
    for source in sources:
        unique.setdefault(source.path, source)
    return list(unique.values())


def _read_kinetics(file: Path, video_dir: Path) -> Iterator[Source]:
    header, rows = read_table(file, _KINETICS_COLUMNS)
    if lacking := sorted(set(_KINETICS_COLUMNS) - set(header)):
        raise DataError(f"{file} must have the columns {', '.join(_KINETICS_COLUMNS)}, it lacks {lacking[0]}")
    paths = _videos_by_stem(video_dir)
    for line, row in rows:
        columns = {name: value.strip() for name, value in row.items()}
        label, video = columns["label"], columns["youtube_id"]
        try:
            start, end = int(float(columns["time_start"])), int(float(columns["time_end"]))
        except ValueError:
            start = -1
        if not label or not video or start < 0:
            got = f"{label!r}, {video!r}, {columns['time_start']!r}, {columns['time_end']!r}"
            raise DataError(f"{file}:{line}: a label, a video and two times are wanted, got {got}")
        stem = f"{video}_{start:06d}_{end:06d}"
        candidates = paths.get(stem) or paths.get(video) or [f"{stem}.mp4"]
        name = _letters_and_digits(label)
        # Two classes may contain the same seconds of a video: then each has its own file, in its own folder.
        of_class = [path for path in candidates if name in map(_letters_and_digits, PurePosixPath(path).parts[:-1])]
        yield Source((of_class or candidates)[0], label, columns)


def _videos_by_stem(video_dir: Path) -> dict[str, list[str]]:
    """The paths of all videos below a folder, by their file name without extension."""
    paths: dict[str, list[str]] = {}
    for path in sorted(files_below(video_dir)):
        stem, extension = os.path.splitext(PurePosixPath(path).name)
        if extension.lower() in VIDEO_EXTENSIONS | OTHER_VIDEO_EXTENSIONS:
            paths.setdefault(stem, []).append(path)
    return paths


def _letters_and_digits(name: str) -> str:
    """A class name without what tools change when they name a folder: blanks, quotes, capitals."""
    return "".join(character for character in name.lower() if character.isalnum())


def _read_ucf101(file: Path) -> Iterator[Source]:
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        path = line.strip()
        start = max(path.rfind(" "), path.rfind("\t")) + 1
        if start and re.fullmatch("[0-9]+", path[start:]):  # the number of the class
            path = path[:start].rstrip(" \t")
        label, slash, name = path.partition("/")
        if not slash or not label or not name:
            raise DataError(f"{file}:{number}: `Class/video.avi 1` is wanted, got {line.strip()!r}")
        yield Source(str(PurePosixPath(path)), label)


def _read_hmdb51(folder: Path, fold: int) -> Iterator[Source]:
    for file in sorted(folder.iterdir()):
        match = _HMDB51_FILE.fullmatch(file.name)
        if match is None or int(match["fold"]) != fold:
            continue
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            name, _, code = line.strip().rpartition(" ")
            if not name or code not in _HMDB51_SPLITS:
                raise DataError(f"{file}:{number}: `video.avi` and 0, 1 or 2 are wanted, got {line.strip()!r}")
            columns = {"split": _HMDB51_SPLITS[code], "fold": match["fold"]}
            yield Source(f"{match['label']}/{name.strip()}", match["label"], columns)


def _read_something_v1(file: Path) -> Iterator[Source]:
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        video, _, label = (part.strip() for part in line.partition(";"))
        if not video or not label:
            raise DataError(f"{file}:{number}: `id;label` is wanted, got {line.strip()!r}")
        yield Source(video, label)


def _read_something_v2(file: Path) -> Iterator[Source]:
    try:
        entries: Any = json.loads(read_text(file))
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}") from None
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries], start=1):
        if not isinstance(entry, dict) or not entry.get("id") or not isinstance(entry.get("template"), str):
            raise DataError(f"{file}: entry {number} must be an object with an id and a template")
        yield Source(f"{entry['id']}.webm", re.sub(r"[\[\]]", "", entry["template"]).strip())
