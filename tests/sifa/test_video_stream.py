"""Videos by file, folder and pattern."""

from pathlib import Path

from sifa.video_stream import find_videos


def test_find_videos_keeps_the_order_and_skips_other_files(tmp_path: Path) -> None:
    (tmp_path / "videos/more").mkdir(parents=True)
    for name in ("a.avi", "more/b.avi", "notes.txt"):
        (tmp_path / "videos" / name).touch()
    found = find_videos([str(tmp_path / "videos/more/b.avi"), str(tmp_path / "videos")])
    assert [file.name for file in found] == ["b.avi", "a.avi", "b.avi"]
