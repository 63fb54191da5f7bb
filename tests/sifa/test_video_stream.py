"""Videos by file, folder and pattern."""

import os
from pathlib import Path

import pytest

from common.errors import DataError, UserError
from sifa.video_stream import check_video, find_videos


def test_find_videos_keeps_the_order_and_skips_other_files(tmp_path: Path) -> None:
    (tmp_path / "videos/more").mkdir(parents=True)
    for name in ("a.avi", "more/b.avi", "notes.txt"):
        (tmp_path / "videos" / name).touch()
    found = find_videos([str(tmp_path / "videos/more/b.avi"), str(tmp_path / "videos")])
    assert [file.name for file in found] == ["b.avi", "a.avi", "b.avi"]


def test_what_is_no_video_file_is_called_by_its_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a\n\x1b.mp4").touch()
    check_video(tmp_path / "a\n\x1b.mp4")
    for path, message in (
        (tmp_path, f"VIDEO must be a file, {tmp_path} is a folder"),
        (Path("."), "VIDEO must be a file, . is a folder"),
        (tmp_path / "pipe", "pipe is a pipe or a device"),
        (Path("/dev/null"), "/dev/null is a pipe or a device"),
        (Path("https://example.org/a.mp4"), "is an address: videos are read from files"),
        (Path("b\n.mp4"), r"^the video b\\n.mp4 is missing$"),
    ):
        with pytest.raises(DataError, match=message):
            check_video(path)


def test_an_address_is_not_taken_for_a_pattern() -> None:
    with pytest.raises(UserError, match=r"^rtsp://camera/1 is an address: .* download it first$"):
        find_videos(["rtsp://camera/1"])
