"""Videos before extraction: which there are, their classes, and where their frames are written."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from common.errors import DataError
from datasets.annotations import read_classes
from datasets.preparation.tables import read_table

VIDEO_EXTENSIONS = frozenset(
    (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
)
# These count if they open: other files have such names too.
OTHER_VIDEO_EXTENSIONS = frozenset(
    (".asf", ".dv", ".f4v", ".gif", ".m2ts", ".m2v", ".mod", ".mts", ".mxf", ".ogm", ".rm", ".rmvb", ".tod", ".ts")
) | {".vob", ".wtv"}


@dataclass(frozen=True, slots=True)
class Source:
    """A video to extract: a file, or a folder of frames.

    Attributes:
        path: relative to the folder of all videos, with "/" between folders.
        label: name of its class.
        columns: its row of the label file, by column; empty if there is none.
        copy_of: path of an earlier video with the same bytes; empty if there is none, or if nobody has looked.
    """

    path: str
    label: str
    columns: dict[str, str] = field(default_factory=dict)
    copy_of: str = ""


def sources_from_csv(file: Path) -> list[Source]:
    """Reads the videos of a CSV file (UTF-8) whose header has the columns `path` and `label`, in the file's order.

    Args:
        file: to read; the separator is a comma, a semicolon, a tab or a bar.

    Raises:
        DataError: the file is not UTF-8, lacks a column or has no row. Or a row is wrong, and the message begins with
            "FILE:LINE: ": the path or the label is empty, an earlier row has the same path, or the row has more values
            than the header.
        OSError: the file cannot be read.
    """
    header, rows = read_table(file, ("path", "label"))
    if not {"path", "label"} <= set(header):
        got = ", ".join(header) or "nothing"
        raise DataError(f"{file} must have the columns path and label in its first line, got {got}")
    sources: dict[str, Source] = {}
    for line, columns in rows:
        path, label = columns["path"], columns["label"].strip()
        if not path or not label:
            raise DataError(f"{file}:{line}: a path and a label are wanted, got {path!r} and {label!r}")
        path = str(PurePosixPath(path))  # `./a//b` is `a/b`: one video has one path
        if path in sources:
            raise DataError(f"{file}:{line}: the video {path!r} is given a second time")
        sources[path] = Source(path, label, columns)
    if not sources:
        raise DataError(f"{file} has no row below its header")
    return list(sources.values())


def class_names(sources: Sequence[Source], classes_file: Path, empty: Sequence[str] = ()) -> list[str]:
    """The class names in the order of their labels: those of a class file if it exists, or else of the sources, sorted.

    Names that are all whole numbers are labels already: class 7 is then the eighth, even if there is no class 0.

    Args:
        sources: the videos.
        classes_file: it need not exist.
        empty: class folders without a video, which count too, so that the numbers of the others do not depend on what
            a folder contains.

    Raises:
        DataError: the file lacks a class of the sources, or is no class file.
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
    return sorted(wanted.union(empty))


def frame_folders(sources: Sequence[Source]) -> dict[str, str]:
    """Where the frames of each video are written: the path without its extension, if that is unique.

    It is not unique if another video differs only in the extension, has this very name, or is in a folder of this name.
    Then the folder keeps the extension.

    Args:
        sources: all videos of the data set.

    Returns:
        The folder of each video, by the path of the video.
    """
    stems = {source.path: os.path.splitext(source.path)[0] for source in sources}
    count = Counter(stems.values())
    taken = set(stems) | {str(parent) for path in stems for parent in PurePosixPath(path).parents}
    return {path: stem if count[stem] == 1 and stem not in taken else path for path, stem in stems.items()}


def filter_sources(sources: Sequence[Source], conditions: Sequence[str]) -> list[Source]:
    """The sources that meet all conditions.

    Args:
        sources: the videos, with the same columns.
        conditions: `COLUMN=V1,V2` (one of these values) or `COLUMN!=V1,V2` (none of these values).

    Raises:
        DataError: a condition has another form, names an unknown column or a value that no source has, or leaves no
            video.
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
