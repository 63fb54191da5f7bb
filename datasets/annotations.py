"""List files (a line `path num_frames label` for each video) and class files (a line for each class name)."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError
from common.files import write_text
from datasets.limits import read_regular_file

_BLANKS = " \t"
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")  # int() alone would accept "1_000", "+3" and digits of other scripts


@dataclass(frozen=True, slots=True)
class Video:
    """One line of a list file.

    Attributes:
        path: of the video, relative to the root, with "/" between folders.
        num_frames: of the video, at least 1.
        label: class of the video, 0-based.
        line: number of the line in the list file, 1-based; 0 for a video that is not from a list file.
    """

    path: str
    num_frames: int
    label: int
    line: int = 0


def read_list(list_file: str | os.PathLike[str], *, num_classes: int) -> list[Video]:
    """Reads the videos of a list file, in its order.

    Args:
        list_file: UTF-8 text. Blank lines are skipped; paths may contain spaces.
        num_classes: labels must be in 0..num_classes-1.

    Raises:
        DataError: the file is missing, is not UTF-8 or has no video. Or a line is wrong, and the message begins with
            "LIST:LINE: ": it is not `path num_frames label`, num_frames is not a whole number of at least 1, the label
            is out of range, or the path is absolute or contains "..", a backslash or a NUL.
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
    """Reads the class names of a file. The first line is class 0.

    Args:
        classes_file: UTF-8 text, one name in each line. Blank lines at the end are ignored.

    Raises:
        DataError: the file is missing, is not UTF-8 or is empty, or a name is blank or occurs twice.
    """
    names = _read_lines(classes_file, "class file")
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"the class file {classes_file} is empty: it needs one class name a line")
    lines: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name:
            raise DataError(f"{classes_file}:{number}: a class name is wanted, the line is blank")
        if (first := lines.setdefault(name, number)) < number:
            raise DataError(f"{classes_file}:{number}: the class {name!r} stands on line {first} already")
    return names


def write_classes(classes_file: str | os.PathLike[str], names: Sequence[str]) -> None:
    """Writes a class file that `read_classes` reads.

    Args:
        classes_file: to write.
        names: of the classes, in the order of their labels.

    Raises:
        DataError: a name is not one line of text.
        OSError: the file cannot be written.
    """
    write_text(classes_file, format_classes(names))


def format_classes(names: Sequence[str]) -> str:
    """The text of a class file.

    Args:
        names: of the classes, in the order of their labels.

    Raises:
        DataError: a name is not one line of text.
    """
    for name in names:
        if not _is_one_line(name):
            raise DataError(f"a class name must be one line of UTF-8 text without blanks around it, got {name!r}")
    return "".join(f"{name}\n" for name in names)


def check_relative_path(path: str) -> None:
    """Checks that the path of a video fits into a list file and stays below the root, whatever the root is.

    Raises:
        DataError: the path is not one line of text, is absolute, or contains a backslash or "..".
    """
    if not _is_one_line(path):
        raise DataError(f"the path must be one line of UTF-8 text without NUL or blanks around it, got {path!r}")
    if "\\" in path:
        raise DataError(f"the path must have '/' between its folders and no backslash, got {path!r}")
    # ".." is refused everywhere: behind a symbolic link even `a/../b` may be outside.
    if os.path.isabs(path) or path.startswith("/") or os.path.splitdrive(path)[0] or ".." in path.split("/"):
        raise DataError(f"the path must be relative to the root and without '..', got {path!r}")


def _is_one_line(text: str) -> bool:
    # Python escapes the bytes of a file name that are not UTF-8. Such a text cannot be encoded.
    is_utf8 = text.encode("utf-8", "ignore").decode() == text
    return is_utf8 and text == text.strip(" \t\r") != "" and not any(character in text for character in "\n\0")


def _parse_line(text: str, num_classes: int, number: int) -> Video:
    # The path is everything before the last two fields, so it may contain blanks.
    rest, label = _split_last(text)
    path, num_frames = _split_last(rest)
    if not path:
        raise DataError(f"expected `path num_frames label`, got {_shown(text)}")
    if not _WHOLE_NUMBER.fullmatch(num_frames) or int(num_frames) < 1:
        raise DataError(f"num_frames must be a whole number of at least 1, got {_shown(num_frames)} in {_shown(text)}")
    if not _WHOLE_NUMBER.fullmatch(label) or int(label) >= num_classes:
        wanted = f"a class in 0..{num_classes - 1} (num_classes is {num_classes})"
        raise DataError(f"the label must be {wanted}, got {_shown(label)} in {_shown(text)}")
    check_relative_path(path)
    return Video(path, int(num_frames), int(label), number)


def _split_last(text: str) -> tuple[str, str]:
    """The text before its last blanks, and its last field."""
    start = max(text.rfind(blank) for blank in _BLANKS) + 1
    return text[:start].rstrip(_BLANKS), text[start:]


def _shown(text: str) -> str:
    """A text in quotes; a long one is cut in its middle."""
    return repr(text if len(text) <= 200 else f"{text[:100]} … {text[-90:]}")


def _read_lines(file: str | os.PathLike[str], kind: str) -> list[str]:
    """The lines of a text file, stripped of blanks. Only a line feed ends a line: names may contain U+2028."""
    try:
        text = read_regular_file(Path(file), f"the {kind} {file}").decode("utf-8-sig")
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
