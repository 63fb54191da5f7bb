"""What is found to be wrong with a list and its videos, in every format."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import lmdb
import numpy as np
import pytest

from datasets import FrameFolder, Video
from datasets.preparation import checking, extraction_pool
from datasets.preparation.checking import CheckOptions, CheckResult, check_list
from tests.datasets.preparation.listed_frames import picture, write_list, write_videos
from tests.datasets.shard_files import write_shards


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_videos(tmp_path)


def check(data: Path, **options: Any) -> CheckResult:
    return check_list(CheckOptions(**{"list_file": data / "list.txt", "root": data / "frames", **options}))


def kinds(result: CheckResult) -> list[tuple[str, str, int]]:
    return [(problem.kind, problem.path, problem.line) for problem in result.problems]


def test_no_more_processes_than_videos(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Pool(extraction_pool.ProcessPoolExecutor):
        def __init__(self, count: int, **more: Any) -> None:
            asked.append(count)
            super().__init__(min(count, 3), **more)

    monkeypatch.setattr(extraction_pool, "ProcessPoolExecutor", Pool)
    assert not check(data, workers=4096).problems
    assert asked == [3]


@pytest.mark.skipif(
    multiprocessing.get_all_start_methods()[0] != "fork", reason="the patch reaches forked workers only"
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_video_that_kills_its_process_is_found(data: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = FrameFolder.count

    def crash(reader: FrameFolder, path: str) -> int:
        if path == "a/b":
            os.kill(os.getpid(), signal.SIGKILL)
        return count(reader, path)

    monkeypatch.setattr(FrameFolder, "count", crash)
    found = check(data, workers=workers)
    assert kinds(found) == [("broken", "a/b", 2)]
    assert found.problems[0].reason == "the decoder crashed on it, or was killed"


def test_frames_that_the_count_leaves_out_are_a_problem(data: Path) -> None:
    (data / "frames/č/00003.jpg").rename(data / "frames/č/00007.jpg")
    (data / "frames/a/b/00000.jpg").write_bytes(picture("a/b", 0))
    (data / "frames/a/b/0005.jpg").write_bytes(b"the template gives no such name")
    write_list(data / "list.txt", "a/b 3 0", "č 2 1")
    found = check(data)
    assert kinds(found) == [("count", "a/b", 1), ("count", "č", 2)]
    assert [problem.reason for problem in found.problems] == [
        "frame 0 is there too, before the first one, 1 (dataset.first_frame)",
        "frame 3 is missing, but frame 4 is there: only the 2 frames before the gap count, 2 do not",
    ]


def test_large_frames_are_decoded_few_at_a_time(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_PIXELS_AT_ONCE", 3 * 24 * 32)
    reader = FrameFolder(data / "frames")
    with mock.patch.object(reader, "read", wraps=reader.read) as read:
        assert not checking.check_video(reader, Video("a/one two", 5, 0, 1), decode=True)[0]
    assert [call.args[1] for call in read.call_args_list] == [[0], [0, 0, 1], [0, 2, 3], [0, 4]]


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
    assert kinds(found) == [("twice", "a/b", 3), ("class without videos", "", 0)]
    assert found.problems[1].reason == "2 classes have no video: 1, 3"
    assert check(data, num_classes=3).problems[1].reason == "class 1 has no video"
    (data / "classes.txt").write_text("x\ny\nz\n")
    assert check(data, classes_file=data / "classes.txt").problems[1].reason == "class 1 (y) has no video"


def test_many_classes_without_a_video_are_one_line(data: Path) -> None:
    (problem,) = check(data, num_classes=100_000).problems
    assert problem.reason == "99998 classes have no video: 2, 3, 4, 5, 6, 7, 8, 9, ..."


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


@pytest.mark.parametrize("format", ["LMDB", "PACKED", "SHARDS", "VIDEO"])
def test_other_formats(data: Path, format: Any) -> None:
    root = data / format
    root.mkdir()
    if format == "VIDEO":
        writer = cv2.VideoWriter(str(root / "v.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 32))
        for _ in range(3):
            writer.write(np.zeros((32, 32, 3), dtype=np.uint8))
        writer.release()
        write_list(data / "list.txt", "v.avi 3 0", "v.avi 4 0", "w.avi 3 0")
    elif format == "SHARDS":
        write_shards(root, {"v": [picture("v", number) for number in range(1, 4)]})
        write_list(data / "list.txt", "v 3 0", "v 4 0", "w 3 0")
    else:
        file, prefix = (root / "v", "") if format == "LMDB" else (root / "0.lmdb", "v/")
        with lmdb.open(str(file), subdir=format == "LMDB", map_size=1 << 24, lock=False) as environment:
            with environment.begin(write=True) as transaction:
                for number in range(1, 4):
                    transaction.put(f"{prefix}{number:06d}.jpg".encode(), picture("v", number))
        write_list(data / "list.txt", "v 3 0", "v 4 0", "w 3 0")
    found = check(data, format=format, decode=True, root=root)
    assert [(kind, line) for kind, _, line in kinds(found)] == [("twice", 2), ("count", 2), ("missing", 3)]
