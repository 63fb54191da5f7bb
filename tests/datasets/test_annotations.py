"""List files and class files: what is read, and the message for each mistake."""

import re
from pathlib import Path

import pytest

from common.errors import DataError
from datasets import Video, read_classes, read_list, write_classes


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "list.txt"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_reads_paths_with_spaces_and_other_scripts(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeffa/b 10 0\r\n\n  two  words/čáp 鳥\t7 2  \n   \nlast 1 1")
    assert read_list(file, num_classes=3) == [
        Video("a/b", 10, 0, 1),
        Video("two  words/čáp 鳥", 7, 2, 3),
        Video("last", 1, 1, 5),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 3", "expected `path num_frames label`, got 'a 3'"),
        ("a", "expected `path num_frames label`, got 'a'"),
        ("a x 0", "num_frames must be a whole number of at least 1, got 'x'"),
        ("a 3.0 0", "num_frames must be a whole number of at least 1, got '3.0'"),
        ("a 0 0", "num_frames must be a whole number of at least 1, got '0'"),
        ("a -4 0", "num_frames must be a whole number of at least 1, got '-4'"),
        ("a 1_0 0", "num_frames must be a whole number of at least 1, got '1_0'"),
        ("a 9999999999 0", "num_frames must be a whole number of at least 1, got '9999999999'"),
        ("a 3 4", "the label must be a class in 0..3 (num_classes is 4), got '4'"),
        ("a 3 -1", "the label must be a class in 0..3 (num_classes is 4), got '-1'"),
        ("a 3 jump", "the label must be a class in 0..3 (num_classes is 4), got 'jump'"),
        ("/a 3 0", "the path must be relative to the root and without '..', got '/a'"),
        ("../a 3 0", "the path must be relative to the root and without '..', got '../a'"),
        ("a/../../b 3 0", "the path must be relative to the root and without '..', got 'a/../../b'"),
        ("a/.. 3 0", "the path must be relative to the root and without '..', got 'a/..'"),
        ("a\\..\\b 3 0", "no backslash, got 'a\\\\..\\\\b'"),
        ("a\0b 3 0", "without NUL or blanks around it, got 'a\\x00b'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = write(tmp_path, f"good 3 0\n\n{line}\n")
    with pytest.raises(DataError) as caught:
        read_list(file, num_classes=4)
    assert str(caught.value).startswith(f"{file}:3: ")
    assert message in str(caught.value)


def test_names_with_dots_are_no_way_out(tmp_path: Path) -> None:
    assert read_list(write(tmp_path, "a/..b/c..d 1 0"), num_classes=1)[0].path == "a/..b/c..d"


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"the list file {tmp_path / 'no.txt'} does not exist")):
        read_list(tmp_path / "no.txt", num_classes=2)
    with pytest.raises(DataError, match=re.escape(f"the list file {tmp_path} cannot be read: Is a directory")):
        read_list(tmp_path, num_classes=2)
    for text in ("", "\n  \n"):
        file = write(tmp_path, text)
        with pytest.raises(DataError, match=re.escape(f"the list file {file} is empty")):
            read_list(file, num_classes=2)
    file = write(tmp_path, b"a 1 0\n\xe9t\xe9 1 0\n")
    with pytest.raises(DataError, match=re.escape(f"{file}:2: the list file must be UTF-8 text, got the byte 0xe9")):
        read_list(file, num_classes=2)


def test_classes_come_back_as_written(tmp_path: Path) -> None:
    names = ["sit down", "走る", "a\u2028b"]
    write_classes(tmp_path / "classes.txt", names)
    assert read_classes(tmp_path / "classes.txt") == names
    assert [file.name for file in tmp_path.iterdir()] == ["classes.txt"], "a temporary file was left behind"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the class file FILE is empty"),
        ("a\n\nb\n", "FILE:2: a class name is wanted, the line is blank"),
        ("a\nb\na\n", "FILE:3: the class 'a' stands on line 1 already"),
    ],
)
def test_malformed_class_files(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(DataError, match=re.escape(message.replace("FILE", str(file)))):
        read_classes(file)


@pytest.mark.parametrize("name", ["", " a", "a\nb", "a\r", "a\udce9"])
def test_a_class_name_must_be_a_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="a class name must be one line of UTF-8 text"):
        write_classes(tmp_path / "classes.txt", ["good", name])
    assert not (tmp_path / "classes.txt").exists()


def test_long_lines_and_long_files_take_no_time(tmp_path: Path) -> None:
    """A time that grows with the square or the cube of the length would be minutes here."""
    file = tmp_path / "list.txt"
    blanks = " " * 200_000
    file.write_text(f"a{blanks}b 3 0\na{blanks}b\n")
    with pytest.raises(DataError, match=r":2: expected `path num_frames label`, got 'a ") as caught:
        read_list(file, num_classes=1)
    assert len(str(caught.value)) < 500
    file.write_text(f"a{blanks}b\t 3{blanks}0 \n")
    assert [(video.path, video.num_frames) for video in read_list(file, num_classes=1)] == [(f"a{blanks}b", 3)]
    names = [f"class {number}" for number in range(200_000)]
    write_classes(tmp_path / "classes.txt", names)
    assert read_classes(tmp_path / "classes.txt") == names
