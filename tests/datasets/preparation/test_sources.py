"""Which videos there are, their classes, their folders, and the rows a condition selects."""

import os
import re
from pathlib import Path

import pytest

from common.errors import DataError
from datasets.preparation.class_folders import check_no_split_folders, find_in_folders, sources_from_folders
from datasets.preparation.sources import (
    Source,
    class_names,
    filter_sources,
    frame_folders,
    sources_from_csv,
)
from tests.datasets.preparation.videos import make_video


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def csv_file(folder: Path, text: str) -> Path:
    file = folder / "labels.csv"
    file.write_bytes(text.encode())
    return file


def test_folders_are_classes_whatever_lies_deeper(tmp_path: Path) -> None:
    touch(
        tmp_path, "walk/b.MP4", "walk/x/a.avi", "run/a b.mkv", "run/notes.txt", "run/._a.mp4", ".cache/a.mp4", "l.csv"
    )
    sources = sources_from_folders(tmp_path)
    assert [(source.path, source.label) for source in sources] == [
        ("run/a b.mkv", "run"),
        ("walk/b.MP4", "walk"),
        ("walk/x/a.avi", "walk"),
    ]


def test_folders_without_classes_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "walk/readme.txt")
    with pytest.raises(DataError, match="there is no video in the sub-folders of"):
        sources_from_folders(tmp_path)
    touch(tmp_path, "a.mp4")
    with pytest.raises(DataError, match=r"'a\.mp4' is in no class folder of"):
        sources_from_folders(tmp_path)


def test_what_opens_is_a_video_whatever_its_name_and_the_rest_is_told(tmp_path: Path) -> None:
    for path in ("a/x.MTS", "a/y.clip", "b/z.TS", "b/damaged.mkv"):
        make_video(tmp_path / path, 2)
    (tmp_path / "b/damaged.mkv").write_bytes(b"no video")
    (tmp_path / "b/code.ts").write_text("let x = 1")
    (tmp_path / "b/list.m3u").write_text("#EXTM3U\nz.TS\n")
    (tmp_path / "b/gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "b/pipe")
    touch(tmp_path, "notes/readme.txt", "b/song.mp3")
    found = find_in_folders(tmp_path)
    assert [source.path for source in found.sources] == ["a/x.MTS", "a/y.clip", "b/damaged.mkv", "b/z.TS"]
    assert found.skipped == {
        "b/code.ts": "it does not open as a video",
        "b/gone": "it is a link to nothing",
        "b/list.m3u": "it is a playlist (M3U or HLS), which names other files: give the videos",
        "b/pipe": "it is no regular file",
        "b/song.mp3": "it is a sound file",
        "notes/readme.txt": "it does not open as a video",
    }
    assert found.empty == ["notes"]
    assert class_names(found.sources, tmp_path / "none.txt", found.empty) == ["a", "b", "notes"]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "videos/a/x.mp4", "else/y.mp4", "else/deep/z.mp4")
    videos = tmp_path / "videos"
    for link, target in (
        ("b", "../else"),
        ("c", "../else"),
        ("a/w.mp4", "../../else/y.mp4"),
        ("a/up", ".."),
        ("d", "d"),
    ):
        (videos / link).symlink_to(target)
    (tmp_path / "else/loop").symlink_to(".")
    found = find_in_folders(videos)
    assert [source.path for source in found.sources] == [
        *("a/w.mp4", "a/x.mp4", "b/deep/z.mp4", "b/y.mp4", "c/deep/z.mp4", "c/y.mp4"),
    ]
    searched = "it is a link to a folder that is searched already"
    assert found.skipped == {"a/up": searched, "b/loop": searched, "c/loop": searched, "d": "it is a link to nothing"}
    for number in range(30):  # 2^30 ways to the last of these
        (tmp_path / f"bomb/{number}").mkdir(parents=True)
        for name in "lr":
            (tmp_path / f"bomb/{number}/{name}").symlink_to(f"../{number + 1}")
    (videos / "a/bomb").symlink_to(tmp_path / "bomb/0")
    assert len(find_in_folders(videos).sources) == 6


def test_the_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    check_no_split_folders(tmp_path, ["train", "bus"], "")
    with pytest.raises(DataError, match=r"must be classes, they are train, val: do so"):
        check_no_split_folders(tmp_path, ["val", "train", "val"], "do so")


def test_csv_rows_keep_their_columns_and_quoting(tmp_path: Path) -> None:
    file = csv_file(tmp_path, '\ufefflabel,path,scene\r\nsit,"a, b.mp4",3\r\nrun,./x//č.mp4,\r\n')
    sources = sources_from_csv(file)
    assert [(source.path, source.label, source.columns["scene"]) for source in sources] == [
        ("a, b.mp4", "sit", "3"),
        ("x/č.mp4", "run", ""),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the columns path and label in its first line, got nothing"),
        ("file,label\na,b\n", "must have the columns path and label in its first line, got file, label"),
        ("path,label\n", "has no row below its header"),
        ("path,label\na.mp4,x\nb.mp4\n", ":3: a path and a label are wanted, got 'b.mp4' and ''"),
        ("path,label\na.mp4,x\n./a.mp4,y\n", ":3: the video 'a.mp4' is given a second time"),
    ],
)
def test_malformed_csv(tmp_path: Path, text: str, message: str) -> None:
    file = csv_file(tmp_path, text)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        sources_from_csv(file)
    assert str(caught.value).startswith(str(file))


def test_class_names_are_sorted_unless_a_file_or_numbers_say_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    assert class_names([Source("1", "b"), Source("2", "a"), Source("3", "b")], file) == ["a", "b"]
    assert class_names([Source("1", "10"), Source("2", "2")], file) == [str(number) for number in range(11)]
    assert class_names([Source("1", "10"), Source("2", "x")], file) == ["10", "x"]
    file.write_text("b\nc\na\n")
    assert class_names([Source("1", "a")], file) == ["b", "c", "a"]
    with pytest.raises(DataError, match=re.escape(f"the class file {file} lacks the class 'd'")):
        class_names([Source("1", "d"), Source("2", "a")], file)


def test_no_two_videos_share_a_folder() -> None:
    paths = ["c/a.avi", "c/a.mp4", "c/a.mp4.mkv", "c/b.x.mp4", "d/v.mp4", "d/v/w.mp4", "e/.mp4", "e/plain"]
    folders = frame_folders([Source(path, "") for path in paths])
    assert folders == {
        "c/a.avi": "c/a.avi",
        "c/a.mp4": "c/a.mp4",
        "c/a.mp4.mkv": "c/a.mp4.mkv",
        "c/b.x.mp4": "c/b.x",
        "d/v.mp4": "d/v.mp4",
        "d/v/w.mp4": "d/v/w",
        "e/.mp4": "e/.mp4",
        "e/plain": "e/plain",
    }


def test_conditions_select_and_complement() -> None:
    sources = [Source(f"{scene}{who}", "x", {"scene": scene, "who": who}) for scene in "123" for who in "ab"]

    def paths(*conditions: str) -> list[str]:
        return [source.path for source in filter_sources(sources, conditions)]

    assert paths() == ["1a", "1b", "2a", "2b", "3a", "3b"]
    assert paths("scene=1,3") == ["1a", "1b", "3a", "3b"]
    assert paths("scene!=1,3") == ["2a", "2b"]
    assert paths("scene!=2", "who=b") == ["1b", "3b"]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["scene"], "a condition must be COLUMN=V1,V2 or COLUMN!=V1,V2 (columns: scene), got 'scene'"),
        (["place=1"], "(columns: scene), got 'place=1'"),
        (["scene=1,9"], "no row has the scene '9' of the condition 'scene=1,9'"),
        (["scene=1", "scene=2"], "the condition 'scene=2' leaves no video"),
    ],
)
def test_conditions_that_cannot_be(conditions: list[str], message: str) -> None:
    sources = [Source(scene, "x", {"scene": scene}) for scene in "12"]
    with pytest.raises(DataError, match=re.escape(message)):
        filter_sources(sources, conditions)
