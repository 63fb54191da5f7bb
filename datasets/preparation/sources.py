"""Videos before they are frames: which there are, of which class, and where their frames go."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from common.errors import DataError
from datasets.annotations import read_classes

EXTENSIONS = frozenset(
    (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
)


@dataclass(frozen=True, slots=True)
class Source:
    """A video file.

    path: relative to the folder of all videos, with "/" between folders.
    label: the name of its class.
    columns: its row of the CSV file, by column; empty without one.
    """

    path: str
    label: str
    columns: dict[str, str] = field(default_factory=dict)


def sources_from_folders(video_dir: Path) -> list[Source]:
    """The videos below a folder, sorted by path; a video's class is the sub-folder that it is in.

    Hidden files and files without an extension of EXTENSIONS are no videos. Raises DataError if there is none, or one
    that is in no sub-folder; OSError if a folder cannot be read.
    """
    sources = []
    for folder, subfolders, names in os.walk(video_dir, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or PurePosixPath(name).suffix.lower() not in EXTENSIONS:
                continue
            path = Path(folder, name).relative_to(video_dir).as_posix()
            if "/" not in path:
                raise DataError(f"{path!r} is in no class folder of {video_dir}; move it, or give labels in a CSV file")
            sources.append(Source(path, path.partition("/")[0]))
    if not sources:
        wanted = ", ".join(sorted(EXTENSIONS))
        raise DataError(f"there is no video in the sub-folders of {video_dir} (extensions: {wanted})")
    return sorted(sources, key=lambda source: source.path)


def sources_from_csv(file: Path) -> list[Source]:
    """The rows of a CSV file (UTF-8) whose header has the columns `path` and `label`, in their order.

    Raises DataError if the file is no such file or has no row, or, with "FILE:LINE: " in front, if a row has no path
    or no label, or the path of an earlier row; OSError if the file cannot be read.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} must be UTF-8 text: {error.reason} at byte {error.start}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = list(reader.fieldnames or [])
    if not {"path", "label"} <= set(header):
        got = ", ".join(header) or "nothing"
        raise DataError(f"{file} must have the columns path and label in its first line, got {got}")
    sources: dict[str, Source] = {}
    for row in reader:
        columns = {name: row[name] or "" for name in header}  # a short row lacks the last columns
        path, label = columns["path"], columns["label"].strip()
        if not path or not label:
            raise DataError(f"{file}:{reader.line_num}: a path and a label are wanted, got {path!r} and {label!r}")
        path = str(PurePosixPath(path))  # `./a//b` is `a/b`: one video has one path
        if path in sources:
            raise DataError(f"{file}:{reader.line_num}: the video {path!r} is given a second time")
        sources[path] = Source(path, label, columns)
    if not sources:
        raise DataError(f"{file} has no row below its header")
    return list(sources.values())


def class_names(sources: Sequence[Source], classes_file: Path) -> list[str]:
    """The class names in the order of their labels: the file's if it exists, or else those of the sources, sorted.

    Names that are all whole numbers are labels already: class 7 is then the eighth, whichever others there are.
    Raises DataError if the file lacks a class of the sources, or is no class file.
    """
    wanted = {source.label for source in sources}
    if classes_file.exists():
        names = read_classes(classes_file)
        if lacking := sorted(wanted.difference(names)):
            hint = "correct it, or give another with --classes"
            raise DataError(f"the class file {classes_file} lacks the class {lacking[0]!r}; {hint}")
        return names
    if all(re.fullmatch("0|[1-9][0-9]{0,5}", label) for label in wanted):
        return [str(label) for label in range(max(map(int, wanted)) + 1)]
    return sorted(wanted)


def frame_folders(sources: Sequence[Source]) -> dict[str, str]:
    """Where the frames of every video go, by the video's path: that path without extension, unless another needs it.

    Another needs it if it differs in the extension alone, has this very name, or lies in a folder of this name; the
    folder then keeps the extension.
    """
    stems = {source.path: os.path.splitext(source.path)[0] for source in sources}
    count = Counter(stems.values())
    taken = set(stems) | {str(parent) for path in stems for parent in PurePosixPath(path).parents}
    return {path: stem if count[stem] == 1 and stem not in taken else path for path, stem in stems.items()}


def select(sources: Sequence[Source], conditions: Sequence[str]) -> list[Source]:
    """The sources that meet every condition: `COLUMN=V1,V2` (one of these values) or `COLUMN!=V1,V2` (none of them).

    Raises DataError if a condition is none, names an unknown column or a value that no source has, or leaves nothing.
    """
    left = list(sources)
    for condition in conditions:
        column, equals, text = condition.partition("=")
        negated = column.endswith("!")
        column, values = column.removesuffix("!"), set(text.split(","))
        columns = sources[0].columns
        if not equals or column not in columns:
            known = ", ".join(columns) or "none"
            raise DataError(f"a condition must be COLUMN=V1,V2 or COLUMN!=V1,V2 (columns: {known}), got {condition!r}")
        if lacking := sorted(values - {source.columns[column] for source in sources}):
            raise DataError(f"no row has the {column} {lacking[0]!r} of the condition {condition!r}")
        left = [source for source in left if (source.columns[column] in values) != negated]
        if not left:
            raise DataError(f"the condition {condition!r} leaves no video")
    return left


def _raise(error: OSError) -> None:
    raise error
