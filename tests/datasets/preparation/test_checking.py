"""What is found to be wrong with a list and its videos, in every format."""

from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest

from datasets.preparation import checking
from datasets.preparation.checking import CheckOptions, CheckResult, check_list
from tests.datasets.preparation.listed_frames import picture, write_list, write_videos


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_videos(tmp_path)


def check(data: Path, **options: Any) -> CheckResult:
    return check_list(CheckOptions(**{"list_file": data / "list.txt", "root": data / "frames", **options}))


def kinds(result: CheckResult) -> list[tuple[str, str, int]]:
    return [(problem.kind, problem.path, problem.line) for problem in result.problems]


def test_no_more_processes_than_videos(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Pool(checking.ProcessPoolExecutor):
        def __init__(self, count: int, **more: Any) -> None:
            asked.append(count)
            super().__init__(min(count, 3), **more)

    monkeypatch.setattr(checking, "ProcessPoolExecutor", Pool)
    assert not check(data, workers=4096).problems
    assert asked == [3]


def test_a_hole_in_the_numbers_is_a_wrong_count(data: Path) -> None:
    (data / "frames/č/00002.jpg").unlink()
    assert kinds(check(data)) == [("count", "č", 3)]


def test_broken_pictures_are_found_by_decoding(data: Path) -> None:
    (data / "frames/a/b/00002.jpg").write_bytes(picture("a/b", 2)[:-9])
    (data / "frames/č/00003.jpg").write_bytes(picture("č", 3, size=(25, 32)))
    assert not check(data).problems, "only with decode"
    found = check(data, decode=True)
    assert kinds(found) == [("broken", "a/b", 2), ("broken", "č", 3)]
    assert "ends before the picture does" in found.problems[0].reason
    assert "must be 32x24, the size of the clip's other frames, got 32x25" in found.problems[1].reason


def test_videos_twice_and_classes_without(data: Path) -> None:
    write_list(data / "list.txt", "a/b 3 0", "č 4 2", "a/b 3 0")
    found = check(data, num_classes=4)
    assert kinds(found) == [("twice", "a/b", 3), ("class without videos", "", 0), ("class without videos", "", 0)]
    assert [problem.reason for problem in found.problems[1:]] == ["class 1 has no video", "class 3 has no video"]


def test_videos_of_both_splits(data: Path) -> None:
    copy = data / "frames/copy of č"
    copy.mkdir()
    for file in (data / "frames/č").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    write_list(data / "val.txt", "a/b 3 0", "copy of č 4 1")
    assert kinds(check(data, against=data / "val.txt")) == [("shared path", "a/b", 2), ("shared contents", "č", 3)]
    # Below another root the same path is another video.
    (data / "other").mkdir()
    (data / "frames/copy of č").rename(data / "other/a")
    write_list(data / "val.txt", "a 4 0")
    found = check(data, against=data / "val.txt", against_root=data / "other")
    assert kinds(found) == [("shared contents", "č", 3)]


@pytest.mark.parametrize("format", ["LMDB", "PACKED", "VIDEO"])
def test_other_formats(data: Path, format: Any) -> None:
    root = data / format
    root.mkdir()
    if format == "VIDEO":
        writer = cv2.VideoWriter(str(root / "v.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 32))
        for _ in range(3):
            writer.write(np.zeros((32, 32, 3), dtype=np.uint8))
        writer.release()
        write_list(data / "list.txt", "v.avi 3 0", "v.avi 4 0", "w.avi 3 0")
    else:
        file, prefix = (root / "v", "") if format == "LMDB" else (root / "0.lmdb", "v/")
        with lmdb.open(str(file), subdir=format == "LMDB", map_size=1 << 24, lock=False) as environment:
            with environment.begin(write=True) as transaction:
                for number in range(1, 4):
                    transaction.put(f"{prefix}{number:06d}.jpg".encode(), picture("v", number))
        write_list(data / "list.txt", "v 3 0", "v 4 0", "w 3 0")
    found = check(data, format=format, decode=True, root=root)
    assert [(kind, line) for kind, _, line in kinds(found)] == [("twice", 2), ("count", 2), ("missing", 3)]
