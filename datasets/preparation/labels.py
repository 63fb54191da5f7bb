"""The label files of public data sets as published: Kinetics, UCF101, HMDB51, Something-Something V1 and V2."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import DataError
from datasets.preparation.sources import EXTENSIONS, Source, sources_from_csv

_KINETICS = ("label", "youtube_id", "time_start", "time_end")
_HMDB = re.compile(r"(?P<label>.+)_test_split(?P<fold>[123])\.txt")
_HMDB_SPLITS = {"0": "unused", "1": "train", "2": "test"}


def sources_from_labels(labels: Path, video_dir: Path, *, fold: int = 1) -> list[Source]:
    """The videos that a label file names, whichever kind it is:

    - CSV with the columns path and label: `sources_from_csv`.
    - CSV with label, youtube_id, time_start, time_end and more: Kinetics. The video is whichever file below video_dir
      is named `ID_000012_000022` or `ID`, with any video's extension; of several, the one in a folder of its class.
    - CSV without header, `id;label`: Something-Something V1. The video is video_dir/id, a folder of frames.
    - JSON, a list of objects with id and template: Something-Something V2. The video is video_dir/id.webm.
    - TXT, `Class/video.avi` or `Class/video.avi 1`: UCF101. The class is the folder.
    - a folder of `class_test_split1.txt` files: HMDB51. The videos are video_dir/class/name; only those of `fold`, with
      train, test or unused in the column split.

    A video that a file names twice counts once, with its first label, except in a CSV of path and label, where that
    is an error. Raises DataError if the file is of no such kind or malformed; OSError if it cannot be read.
    """
    if labels.is_dir():
        sources = list(_hmdb51(labels, fold))
    elif labels.suffix.lower() == ".json":
        sources = list(_something_v2(labels))
    elif labels.suffix.lower() == ".txt":
        sources = list(_ucf101(labels))
    else:
        header = _text(labels).partition("\n")[0].strip()
        if {"youtube_id", "time_start"} & set(header.split(",")):
            sources = list(_kinetics(labels, video_dir))
        elif ";" in header and "," not in header.partition(";")[0]:
            sources = list(_something_v1(labels))
        else:
            return sources_from_csv(labels)
    if not sources:
        raise DataError(f"{labels} names no video")
    unique: dict[str, Source] = {}
    for source in sources:
        unique.setdefault(source.path, source)
    return list(unique.values())


def _kinetics(file: Path, video_dir: Path) -> Iterator[Source]:
    reader = csv.DictReader(io.StringIO(_text(file), newline=""))
    header = list(reader.fieldnames or [])
    if lacking := sorted(set(_KINETICS) - set(header)):
        raise DataError(f"{file} must have the columns {', '.join(_KINETICS)}, it lacks {lacking[0]}")
    there = _videos_by_stem(video_dir)
    for row in reader:
        columns = {name: (row[name] or "").strip() for name in header}
        label, video = columns["label"], columns["youtube_id"]
        try:
            start, end = int(float(columns["time_start"])), int(float(columns["time_end"]))
        except ValueError:
            start = -1
        if not label or not video or start < 0:
            got = f"{label!r}, {video!r}, {columns['time_start']!r}, {columns['time_end']!r}"
            raise DataError(f"{file}:{reader.line_num}: a label, a video and two times are wanted, got {got}")
        stem = f"{video}_{start:06d}_{end:06d}"
        found = there.get(stem) or there.get(video) or [f"{stem}.mp4"]
        plain = _plain(label)
        # Two classes may have cut the same seconds: each has its file then, in its own folder.
        mine = [path for path in found if plain in map(_plain, PurePosixPath(path).parts[:-1])]
        yield Source((mine or found)[0], label, columns)


def _videos_by_stem(video_dir: Path) -> dict[str, list[str]]:
    there: dict[str, list[str]] = {}
    for folder, subfolders, names in os.walk(video_dir):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            stem, extension = os.path.splitext(name)
            if extension.lower() in EXTENSIONS:
                there.setdefault(stem, []).append(Path(folder, name).relative_to(video_dir).as_posix())
    return there


def _plain(name: str) -> str:
    """A class name without what tools change in a folder's name: spaces, quotes, capitals."""
    return "".join(character for character in name.lower() if character.isalnum())


def _ucf101(file: Path) -> Iterator[Source]:
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        path = re.sub(r"[ \t]+[0-9]+$", "", line.strip())
        label, slash, name = path.partition("/")
        if not slash or not label or not name:
            raise DataError(f"{file}:{number}: `Class/video.avi 1` is wanted, got {line.strip()!r}")
        yield Source(str(PurePosixPath(path)), label)


def _hmdb51(folder: Path, fold: int) -> Iterator[Source]:
    for file in sorted(folder.iterdir()):
        match = _HMDB.fullmatch(file.name)
        if match is None or int(match["fold"]) != fold:
            continue
        for number, line in enumerate(_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            name, _, code = line.strip().rpartition(" ")
            if not name or code not in _HMDB_SPLITS:
                raise DataError(f"{file}:{number}: `video.avi` and 0, 1 or 2 are wanted, got {line.strip()!r}")
            columns = {"split": _HMDB_SPLITS[code], "fold": match["fold"]}
            yield Source(f"{match['label']}/{name.strip()}", match["label"], columns)


def _something_v1(file: Path) -> Iterator[Source]:
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        video, _, label = (part.strip() for part in line.partition(";"))
        if not video or not label:
            raise DataError(f"{file}:{number}: `id;label` is wanted, got {line.strip()!r}")
        yield Source(video, label)


def _something_v2(file: Path) -> Iterator[Source]:
    try:
        entries: Any = json.loads(_text(file))
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}") from None
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries], start=1):
        if not isinstance(entry, dict) or not entry.get("id") or not isinstance(entry.get("template"), str):
            raise DataError(f"{file}: entry {number} must be an object with an id and a template")
        yield Source(f"{entry['id']}.webm", re.sub(r"[\[\]]", "", entry["template"]).strip())


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} must be UTF-8 text: {error.reason} at byte {error.start}") from None
