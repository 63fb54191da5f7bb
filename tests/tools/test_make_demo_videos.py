"""The demo's videos: every class and split is written, and a seed decides everything."""

from pathlib import Path

import cv2
import pytest

from datasets.preparation.demo_videos import MOTIONS
from tools import make_demo_videos


def run(folder: Path, *options: str) -> int:
    return make_demo_videos.main(
        [str(folder), "--train=2", "--val=1", "--size=32", "--frames=6", "--workers=1", *options]
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.mp4")}


def test_every_class_and_split_is_written_and_decodes(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    expected = {f"train/{motion}/000{number}.mp4" for motion in MOTIONS for number in range(2)}
    expected |= {f"val/{motion}/0000.mp4" for motion in MOTIONS}
    assert set(contents(tmp_path)) == expected
    assert len(MOTIONS) == 8
    capture = cv2.VideoCapture(str(tmp_path / "val/grow/0000.mp4"))
    shapes = [frame.shape for there, frame in iter(capture.read, (False, None)) if there]
    assert shapes == [(32, 32, 3)] * 6


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    for name, *options in (("a",), ("b",), ("c", "--seed=1"), ("d", "--train=3", "--workers=2")):
        assert run(tmp_path / name, *options) == 0
    first = contents(tmp_path / "a")
    assert contents(tmp_path / "b") == first
    assert len(set(first.values())) == len(first), "two videos are equal"
    assert not set(contents(tmp_path / "c").values()) & set(first.values())
    assert contents(tmp_path / "d").items() > first.items(), "more videos must not change the others"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size=33"], "--size must be even, as the video format wants it, got 33"),
        (["--size=8"], "--size must be in 32..1024, got 8"),
        (["--frames=1"], "--frames must be in 2..1000, got 1"),
        (["--train=0"], "--train must be in 1..9999, got 0"),
        (["--seed=-1"], "--seed must be in 0..9223372036854775808, got -1"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(tmp_path, *options) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_videos_of_another_run_are_not_mixed_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "train/grow/0007.mp4"
    old.parent.mkdir(parents=True)
    old.touch()
    assert run(tmp_path) == 2
    assert f"OUT_DIR holds a video that is not of this run, {old}" in capsys.readouterr().err
    old.rename(old.with_name(".0001.mp4"))  # which a killed run was writing
    assert run(tmp_path) == 0


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/train").touch()
    (tmp_path / "video/train/grow/.0000.mp4").mkdir(parents=True)  # in the place of one that is being written
    for folder, message in (
        (file, f"OUT_DIR must be a folder, {file} is a file"),
        (tmp_path / "taken", f"{tmp_path / 'taken/train/grow'}: Not a directory"),
        (Path("/proc/out"), "/proc/out: No such file or directory"),
        (tmp_path / "video", f"OpenCV cannot write the video {tmp_path / 'video/train/grow/0000.mp4'}"),
    ):
        assert run(folder) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
