"""The command prints what is wrong with a list and its videos, and writes it as JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.preparation.listed_frames import write_list, write_videos
from tools import check_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_videos(tmp_path)


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
    assert error.startswith("error: ")
    assert message in error


def test_a_report_that_cannot_be_written_ends_before_the_check(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_dataset, "check_list", lambda *_: pytest.fail("this is hours later"))
    assert check(data, "--report=/proc/x.json") == (2, {})
    error = capsys.readouterr().err
    assert error.startswith("error: --report /proc/x.json: the folder /proc cannot be written to: ")
    assert error.count("\n") == 1
    assert check(data, f"--report={data}") == (2, {})
    assert capsys.readouterr().err == f"error: --report must be a file, {data} is a folder\n"
    assert check(data, f"--report={data / 'list.txt/x.json'}") == (2, {})
    assert f"--report {data / 'list.txt/x.json'}: {data / 'list.txt'} is a file" in capsys.readouterr().err
