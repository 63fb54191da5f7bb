"""List files (`path num_frames label`, one video a line) and class files (one name a line)."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError
from common.files import write_text

# The path is whatever stands before the last two fields, so it may contain spaces.
_LINE = re.compile(r"(?P<path>.+?)[ \t]+(?P<num_frames>[^ \t]+)[ \t]+(?P<label>[^ \t]+)")
_COUNT = re.compile(r"[0-9]{1,9}")  # int() alone would accept "1_000", "+3" and digits of other scripts


@dataclass(frozen=True, slots=True)
class Video:
    """One line of a list file.

    path: the video's frames, relative to the root, with "/" between folders.
    num_frames: how many frames it has, at least 1.
    label: its class, 0-based.
    line: where it stands in the list file, 1-based; 0 if it was not read from one.
    """

    path: str
    num_frames: int
    label: int
    line: int = 0


def read_list(list_file: str | os.PathLike[str], *, num_classes: int) -> list[Video]:
    """The videos of a list file, in its order. Blank lines are skipped; paths may contain spaces.

    Raises DataError if the file is missing, not UTF-8 or holds no video, and, with "LIST:LINE: " in front, if a line
    is not `path num_frames label`, num_frames is not a whole number of at least 1, the label is not in
    0..num_classes-1, or the path is absolute or contains "..", a backslash or a NUL.
    """
    videos = []
    for number, text in enumerate(_read_lines(list_file, "list file"), start=1):
        if not text:
            continue
        try:
            videos.append(_parse_line(text, num_classes, number))
        except DataError as error:
            raise DataError(f"{list_file}:{number}: {error}") from None
    if not videos:
        raise DataError(f"the list file {list_file} is empty: it needs one `path num_frames label` line a video")
    return videos


def read_classes(classes_file: str | os.PathLike[str]) -> list[str]:
    """The class names of a file with one name a line; the first line is class 0. Blank lines at the end are ignored.

    Raises DataError if the file is missing, not UTF-8 or empty, or a name is blank or given twice.
    """
    names = _read_lines(classes_file, "class file")
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"the class file {classes_file} is empty: it needs one class name a line")
    for number, name in enumerate(names, start=1):
        if not name:
            raise DataError(f"{classes_file}:{number}: a class name is wanted, the line is blank")
        if (first := names.index(name) + 1) < number:
            raise DataError(f"{classes_file}:{number}: the class {name!r} stands on line {first} already")
    return names


def write_classes(classes_file: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Write class names so that `read_classes` gives them back. Raises DataError for a name that cannot be a line."""
    write_text(classes_file, class_lines(names))


def class_lines(names: Sequence[str]) -> str:
    """What `write_classes` writes. Raises DataError for a name that cannot be a line."""
    for name in names:
        if not _fits_a_line(name):
            raise DataError(f"a class name must be one line of UTF-8 text without blanks around it, got {name!r}")
    return "".join(f"{name}\n" for name in names)


def check_relative_path(path: str) -> None:
    """Raise DataError unless the path of a video stays below the root whatever the root is, and fits in a list line."""
    if not _fits_a_line(path):
        raise DataError(f"the path must be one line of UTF-8 text without NUL or blanks around it, got {path!r}")
    if "\\" in path:
        raise DataError(f"the path must have '/' between its folders and no backslash, got {path!r}")
    # ".." is refused everywhere: behind a symbolic link even `a/../b` may be outside.
    if os.path.isabs(path) or path.startswith("/") or os.path.splitdrive(path)[0] or ".." in path.split("/"):
        raise DataError(f"the path must be relative to the root and without '..', got {path!r}")


def _fits_a_line(text: str) -> bool:
    is_text = (
        text.encode("utf-8", "ignore").decode() == text
    )  # a file's name may be no text, and Python then escapes it
    return is_text and text == text.strip(" \t\r") != "" and not any(character in text for character in "\n\0")


def _parse_line(text: str, num_classes: int, number: int) -> Video:
    match = _LINE.fullmatch(text)
    if match is None:
        raise DataError(f"expected `path num_frames label`, got {text!r}")
    path, num_frames, label = match["path"], match["num_frames"], match["label"]
    if not _COUNT.fullmatch(num_frames) or int(num_frames) < 1:
        raise DataError(f"num_frames must be a whole number of at least 1, got {num_frames!r} in {text!r}")
    if not _COUNT.fullmatch(label) or int(label) >= num_classes:
        wanted = f"a class in 0..{num_classes - 1} (num_classes is {num_classes})"
        raise DataError(f"the label must be {wanted}, got {label!r} in {text!r}")
    check_relative_path(path)
    return Video(path, int(num_frames), int(label), number)


def _read_lines(file: str | os.PathLike[str], kind: str) -> list[str]:
    """The lines of a text file without the blanks around them. Only line feeds end a line: names may hold U+2028."""
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"the {kind} {file} does not exist") from None
    except OSError as error:
        raise DataError(f"the {kind} {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}:{line}: the {kind} must be UTF-8 text, got the byte 0x{error.object[error.start]:02x}"
        ) from None
    return [line.strip(" \t\r") for line in text.split("\n")]
