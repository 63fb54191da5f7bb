"""Recordings as file names tell them, and a split that keeps each on one side."""

from collections import Counter

import pytest

from common.errors import DataError
from datasets.preparation.sources import Source
from datasets.preparation.splits import choose_validation, recordings


def source(path: str, **columns: str) -> Source:
    return Source(path, path.partition("/")[0], columns)


NAMES = {
    "a/v_Basketball_g08_c01.avi": "v_Basketball_g08",
    "a/RATRACE_wave_f_nm_np1_fr_goo_37.avi": "RATRACE_wave_f_nm_np1_fr_goo",
    "a/train_Jump_11_12.mp4": "train_Jump_11",
    "a/holiday (2).mov": "holiday",
    "a/holiday.part3.mov": "holiday",
    "a/my-clip-7.mp4": "my",
    "a/my clip c_7.mp4": "my clip c",
    "a/R6llTwEh07w.mp4": "R6llTwEh07w",
    "a/0001.mp4": "0001",
    "a/GOPR0042.mp4": "GOPR0042",
    "a/GP010042.mp4": "GOPR0042",
    "a/GX010001.MP4": "GX0001",
    "a/GX020001.MP4": "GX0001",
    "a/GX010002.MP4": "GX0002",
    "a/-R6llTwEh0w_000012_000022.mp4": "-R6llTwEh0w",
    "a/-R6llTwEh0w_000032_000042.mp4": "-R6llTwEh0w",
    "a/ID_000012_000022.mp4": "ID",
    "a/ID_000022_000032.mp4": "ID",
    "a/holiday-2_12.5_20.25.mp4": "holiday-2",
    "a/S001C002P003R001A010_rgb.avi": "P003",
    "a/S004C001P003R002A010_rgb.avi": "P003",
    "a/WatchTV_p02_r00_v14_c03.mp4": "p02",
    "a/person01_walking_d1_uncomp.avi": "person01",
    "a/person01_running_d4.avi": "person01",
    "a/P01S02C01.mp4": "P01",
    "a/P01S03C02.mp4": "P01",
}


def test_recordings_by_the_file_name() -> None:
    names, ungrouped = recordings([source(path) for path in NAMES])
    assert names == NAMES
    assert not ungrouped


def test_a_class_of_numbered_videos_has_as_many_recordings() -> None:
    videos = [source(path) for path in ("a/IMG_1.mp4", "a/IMG_2.mp4", "b/x_1.mp4", "b/x_2.mp4", "b/y_1.mp4")]
    names, ungrouped = recordings(videos)
    assert ungrouped == ["a"]
    assert names == {"a/IMG_1.mp4": "a/IMG_1.mp4", "a/IMG_2.mp4": "a/IMG_2.mp4"} | {
        "b/x_1.mp4": "x",
        "b/x_2.mp4": "x",
        "b/y_1.mp4": "y",
    }


def test_a_single_odd_name_does_not_make_one_recording_of_all_others() -> None:
    videos = [source(f"a/IMG_{number:04d}.mp4") for number in range(40)] + [source("a/odd.mp4"), source("b/only_1.mp4")]
    names, ungrouped = recordings(videos)
    assert len(set(names.values())) == 42
    assert ungrouped == ["a"], "a class of one video has nothing to tell"


def test_copies_are_of_one_recording() -> None:
    videos = [source("a/x_1.mp4"), source("a/y.mp4"), Source("b/z.mp4", "b", copy_of="a/x_1.mp4")]
    videos += [Source("b/y_2.mp4", "b", copy_of="b/z.mp4"), Source("b/gone.mp4", "b", copy_of="b/unreadable.mp4")]
    names, _ = recordings(videos)
    assert names == {"a/x_1.mp4": "x", "a/y.mp4": "x", "b/z.mp4": "x", "b/y_2.mp4": "x", "b/gone.mp4": "gone"}


def test_recordings_by_expression_and_by_column() -> None:
    videos = [source("a/Jump_11_1.mp4", scene="7"), source("b/Run_11_2.mp4", scene="8")]
    assert recordings(videos, r"_(\d+)_\d+$")[0] == {"a/Jump_11_1.mp4": "11", "b/Run_11_2.mp4": "11"}
    assert recordings(videos, r"\d+")[0] == {"a/Jump_11_1.mp4": "11", "b/Run_11_2.mp4": "11"}
    assert recordings(videos, "scene")[0] == {"a/Jump_11_1.mp4": "7", "b/Run_11_2.mp4": "8"}


def test_errors() -> None:
    videos = [source("a/x_1.mp4", scene=" ")]
    with pytest.raises(DataError, match=r"the video 'a/x_1.mp4' has no recording: the column scene of its row gives"):
        recordings(videos, "scene")
    with pytest.raises(DataError, match=r"the expression 'g\(\\\\d\+\)' in its name gives nothing"):
        recordings(videos, r"g(\d+)")
    with pytest.raises(DataError, match=r"'\(' is no regular expression"):
        recordings(videos, "(")
    with pytest.raises(DataError, match="above 0 and below 1, got 1"):
        choose_validation(videos, {"a/x_1.mp4": "x"}, 1)


def test_every_class_has_about_its_share_and_every_recording_is_on_one_side() -> None:
    """Classes of very different sizes, recordings of one to seven videos, some with videos of two classes."""
    videos, recording_of = [], {}
    for label, count in (("a", 60), ("b", 24), ("c", 12)):
        for number in range(count):
            video = source(f"{label}/{number}.mp4")
            videos.append(video)
            recording_of[video.path] = f"{'shared' if number < 6 else label}{number % (1 + count // 6)}"
    chosen = choose_validation(videos, recording_of, 0.25)
    totals, held = Counter(v.label for v in videos), Counter(v.label for v in videos if recording_of[v.path] in chosen)
    for label, total in totals.items():
        assert 0.15 <= held[label] / total <= 0.36, label
    assert chosen == choose_validation(list(reversed(videos)), recording_of, 0.25)
    assert chosen != choose_validation(videos, recording_of, 0.25, seed=1)


def test_a_class_with_two_recordings_has_one_on_each_side_and_one_with_a_single_recording_trains() -> None:
    videos = [source(f"{label}/{number}.mp4") for label in "ab" for number in range(10)]
    recording_of = {v.path: v.path[:1] + ("0" if v.path < "a/2" or v.path.startswith("b") else "1") for v in videos}
    assert choose_validation(videos, recording_of, 0.25) == {"a0"}


def test_two_videos_are_enough() -> None:
    videos = [source(path) for path in ("a/x.mp4", "a/y.mp4", "b/x.mp4", "b/y.mp4")]
    (chosen,) = choose_validation(videos, {v.path: v.path[2:3] for v in videos}, 0.01)
    assert chosen in "xy"
