"""The checker finds what is wrong with a list and its videos, in every format, and says nothing where all is well."""

import json
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest

from tools import check_dataset

VIDEOS = {"a/one two": 5, "a/b": 3, "č": 4}


def picture(video: str, number: int, size: tuple[int, int] = (24, 32)) -> bytes:
    seed = sum(video.encode()) * 100 + number
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for video, frames in VIDEOS.items():
        folder = tmp_path / "frames" / video
        folder.mkdir(parents=True)
        for number in range(1, frames + 1):
            (folder / f"{number:05d}.jpg").write_bytes(picture(video, number))
    write_list(
        tmp_path / "list.txt", *(f"{video} {frames} {i % 2}" for i, (video, frames) in enumerate(VIDEOS.items()))
    )
    return tmp_path


def write_list(file: Path, *lines: str) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def check(data: Path, *options: str, name: str = "list.txt", root: str = "frames") -> tuple[int, dict[str, Any]]:
    report = data / "report.json"
    code = check_dataset.main(
        [str(data / name), str(data / root), f"--report={report}", "--workers=1", *options],
    )
    return code, json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}


def kinds(report: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(problem["kind"], problem["path"], problem["line"]) for problem in report["problems"]]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_wrong(data: Path, capsys: pytest.CaptureFixture[str], workers: str) -> None:
    (data / "classes.txt").write_text("x\ny\n")
    code, report = check(data, "--decode", f"--classes={data / 'classes.txt'}", f"--workers={workers}")
    assert code == 0
    assert report == {"ok": True, "videos": 3, "frames": 12, "classes": {"0": 2, "1": 1}, "problems": []}
    assert "3 videos, 12 frames, 2 classes; nothing wrong" in capsys.readouterr().out


def test_no_more_processes_than_videos(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Pool(check_dataset.ProcessPoolExecutor):
        def __init__(self, count: int, **more: Any) -> None:
            asked.append(count)
            super().__init__(min(count, 3), **more)

    monkeypatch.setattr(check_dataset, "ProcessPoolExecutor", Pool)
    assert check(data, "--workers=4096")[0] == 0
    assert asked == [3]


def test_missing_short_and_long_videos(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(data / "list.txt", "a/one two 6 0", "gone 3 0", "a/b 2 1", "č 4 0")
    code, report = check(data)
    assert code == 1
    assert not report["ok"]
    assert kinds(report) == [("count", "a/one two", 1), ("missing", "gone", 2), ("count", "a/b", 3)]
    out = capsys.readouterr().out
    assert f"{data / 'list.txt'}:1: a/one two: the list says 6 frames, it has 5\n" in out
    assert f"gone: there is no folder {data / 'frames/gone'}\n" in out


@pytest.mark.parametrize(
    ("lines", "options", "what"),
    [
        (["x/a 5 0", "x/b 3 1"], [], "is missing: is ROOT {root}, or --format FRAME, or --first_frame 1, right?"),
        (["a/b 3 0", "č 4 1"], ["--format=VIDEO"], "is missing: is ROOT {root}, or --format VIDEO, right?"),
        (
            ["a/b 3 0", "č 4 1"],
            ["--first_frame=0"],
            "has another number of frames: is ROOT {root}, or --format FRAME, or --first_frame 0, right?",
        ),
    ],
)
def test_the_same_problem_of_every_video_has_a_hint(
    data: Path, capsys: pytest.CaptureFixture[str], lines: list[str], options: list[str], what: str
) -> None:
    write_list(data / "list.txt", *lines)
    assert check(data, *options)[0] == 1
    expected = f"every video {what.format(root=data / 'frames')}"
    assert capsys.readouterr().out.splitlines()[-1] == expected
    write_list(data / "list.txt", *lines, "a/one two 5 0")
    check(data)
    assert "every video" not in capsys.readouterr().out


def test_a_hole_in_the_numbers_is_a_wrong_count(data: Path) -> None:
    (data / "frames/č/00002.jpg").unlink()
    assert kinds(check(data)[1]) == [("count", "č", 3)]


def test_broken_pictures_are_found_by_decoding(data: Path) -> None:
    (data / "frames/a/b/00002.jpg").write_bytes(picture("a/b", 2)[:-9])
    (data / "frames/č/00003.jpg").write_bytes(picture("č", 3, size=(25, 32)))
    assert check(data)[0] == 0, "only with --decode"
    code, report = check(data, "--decode")
    assert code == 1
    assert kinds(report) == [("broken", "a/b", 2), ("broken", "č", 3)]
    assert "ends before the picture does" in report["problems"][0]["reason"]
    assert "must be 32x24, the size of the clip's other frames, got 32x25" in report["problems"][1]["reason"]


def test_videos_twice_and_classes_without(data: Path) -> None:
    write_list(data / "list.txt", "a/b 3 0", "č 4 2", "a/b 3 0")
    code, report = check(data, "--num_classes=4")
    assert code == 1
    assert kinds(report) == [("twice", "a/b", 3), ("class without videos", "", 0), ("class without videos", "", 0)]
    assert [problem["reason"] for problem in report["problems"][1:]] == ["class 1 has no video", "class 3 has no video"]


def test_videos_of_both_splits(data: Path) -> None:
    copy = data / "frames/copy of č"
    copy.mkdir()
    for file in (data / "frames/č").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    write_list(data / "val.txt", "a/b 3 0", "copy of č 4 1")
    code, report = check(data, f"--against={data / 'val.txt'}")
    assert code == 1
    assert kinds(report) == [("shared path", "a/b", 2), ("shared contents", "č", 3)]
    # Below another root the same path is another video.
    (data / "other").mkdir()
    (data / "frames/copy of č").rename(data / "other/a")
    write_list(data / "val.txt", "a 4 0")
    code, report = check(data, f"--against={data / 'val.txt'}", f"--against_root={data / 'other'}")
    assert kinds(report) == [("shared contents", "č", 3)]


@pytest.mark.parametrize("format", ["LMDB", "PACKED", "VIDEO"])
def test_other_formats(data: Path, format: str) -> None:
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
    code, report = check(data, f"--format={format}", "--decode", root=format)
    assert code == 1
    assert [(kind, line) for kind, _, line in kinds(report)] == [("twice", 2), ("count", 2), ("missing", 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers=0"], "--workers must be in 1..4096, got 0"),
        (["--workers=100000"], "--workers must be in 1..4096, got 100000"),
        (["--num_classes=0"], "--num_classes must be at least 1, got 0"),
        (["--num_classes=-2"], "--num_classes must be at least 1, got -2"),
        (["--num_classes=1"], "list.txt:2: the label must be a class in 0..0"),
        (["--against=nowhere.txt"], "the list file nowhere.txt does not exist"),
        (["--format=PACKED"], "holds no packed frames"),
        (["--frame_template=a.jpg"], "the frame template must hold a number"),
    ],
)
def test_wrong_arguments_are_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert check(data, *options) == (2, {})
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("check_dataset: ")
    assert message in error


def test_a_report_that_cannot_be_written_ends_before_the_check(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_dataset, "_check_all", lambda *_: pytest.fail("this is hours later"))
    assert check(data, "--report=/proc/x.json") == (2, {})
    error = capsys.readouterr().err
    assert error.startswith("check_dataset: --report /proc/x.json: the folder /proc cannot be written to: ")
    assert error.count("\n") == 1
    assert check(data, f"--report={data}") == (2, {})
    assert capsys.readouterr().err == f"check_dataset: --report must be a file, {data} is a folder\n"
    assert check(data, f"--report={data / 'list.txt/x.json'}") == (2, {})
    assert f"--report {data / 'list.txt/x.json'}: {data / 'list.txt'} is a file" in capsys.readouterr().err
