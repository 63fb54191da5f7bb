"""Videos by file, folder and pattern."""

import os
import shutil
from pathlib import Path

import pytest

from common.errors import DataError, UserError
from sifa.video_stream import check_video, find_videos
from tests.datasets.preparation.videos import make_video


def test_find_videos_keeps_the_order_and_skips_other_files(tmp_path: Path) -> None:
    (tmp_path / "videos/more").mkdir(parents=True)
    for name in ("a.avi", "more/b.avi", "notes.txt"):
        (tmp_path / "videos" / name).touch()
    found = find_videos([str(tmp_path / "videos/more/b.avi"), str(tmp_path / "videos")])
    assert [file.name for file in found] == ["b.avi", "a.avi", "b.avi"]


def test_a_folder_is_searched_behind_links_by_what_opens(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    shutil.copy(make_video(tmp_path / "elsewhere/a.avi", 3, codec="MJPG"), tmp_path / "elsewhere/b.MOD")
    (tmp_path / "elsewhere/notes.txt").write_text("no video")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(folder)
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    said: list[str] = []
    found = find_videos([str(folder)], said.append)
    assert [file.relative_to(folder).as_posix() for file in found] == ["gone.mp4", "linked/a.avi", "linked/b.MOD"]
    assert said == [
        f"skipped in {folder}: linked/notes.txt: it does not open as a video; "
        "linked/loop: it is a link to a folder that is searched already"
    ]


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
