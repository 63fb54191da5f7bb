"""Which clips, frames and positions the viewer draws."""

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sifa
from sifa.viewer import ArgumentError, Viewer
from tests.tiny import SETTINGS, moving_square, write_checkpoint, write_video

SMALL: dict[str, Any] = copy.deepcopy(SETTINGS)
SMALL["dataset"]["clip_length"] = 16  # 31 frames of a video, 4 of the network
FRAMES = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewer")
    write_checkpoint(folder / "last.pth", SMALL)
    write_video(folder / "v.avi", moving_square(FRAMES))
    return folder


def viewer(folder: Path, **options: Any) -> Viewer:
    return Viewer(sifa.load(folder / "last.pth", num_clips=1, num_crops=1), folder / "v.avi", **options)


def test_a_film_of_one_clip_where_it_takes_the_whole_video(folder: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", moving_square(33))
    write_checkpoint(tmp_path / "last.pth", SMALL)
    assert viewer(tmp_path).moments() == ([(0, 0), (0, 1), (0, 2)], 8)
    assert viewer(folder).moments() == ([(start, 1) for start in range(8)], 1)


def test_a_page_of_all_stages_or_one(folder: Path) -> None:
    one = viewer(folder)
    assert '"name":"res3"' in one.page(0, None, None, ["res3", "res4"])
    assert '"name":"res3"' not in one.page(0, None, None, ["res4"])
    assert '"opening":[2,4,2]' in one.page(0, 2, (30, 45), ["res3"])


def test_which_pair_shows_a_frame(folder: Path) -> None:
    """The network's frame i is made of the clip's frames 4 i to 4 i + 3, two frames of the video apart."""
    one = viewer(folder)
    for frame in (4, 9, 12, 20, 25, 27):
        start, t = one.moment_of(frame)
        assert one.clip(start).shown[t] == frame
        assert one.clip(start).positions[4 * t + 2] == frame
    assert one.moment_of(0) == (0, 0), "the nearest there is"
    assert one.moment_of(FRAMES - 1) == (7, 2)
    start, t = one.moment_of(15)
    assert t == 1, "the middle pair"


def test_without_options_the_last_stage_with_fine_maps(folder: Path) -> None:
    """48 pixels make maps of 6 x 6 in res3, 160 pixels of 20 x 20 in res3 and 10 x 10 in res4."""
    stages = {size: viewer(folder, crop_size=size).stage for size in (48, 152, 160, 320)}
    assert stages == {48: "res3", 152: "res3", 160: "res4", 320: "res5"}


def test_a_still_moment_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.avi", [moving_square(1)[0]] * 34)
    write_checkpoint(tmp_path / "last.pth", SMALL)
    said = []
    monkeypatch.setattr("sifa.viewer.draw", lambda *_, subtitle, **__: said.append(subtitle))
    for one in (viewer(tmp_path), viewer(folder)):
        start, t = one.strongest_moment()
        one.picture(start, t)
    assert "; hardly any motion between them" in said[0]
    assert "hardly any motion" not in said[1]


def test_a_query_is_in_pixels_of_the_video(folder: Path) -> None:
    """60 x 80 pixels, whose middle 60 x 60 become 48 x 48: res3's positions lie at 0, 8, ..., 40 of these."""
    one = viewer(folder, stage="res3")
    clip = one.clip(0)
    explanation = one.explain(clip, "res3")
    for query, expected in {(10, 0): (0, 0), (69, 59): (5, 5), (40, 30): (3, 3), (30, 45): (4, 2)}.items():
        assert one.position(query, clip, explanation) == expected


def test_drawn_frames_are_the_crop_in_the_videos_own_sharpness(folder: Path) -> None:
    one = viewer(folder)
    clip = one.clip(0)
    assert np.array_equal(one.drawn_frames(clip), clip.frames[2::4, :, 10:70])
    bright = viewer(folder, gamma=0.5).drawn_frames(clip)
    np.testing.assert_allclose(bright, 255 * np.sqrt(one.drawn_frames(clip) / 255), atol=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "res2"}, "stage res2 of this network has no SIFA; it is in res3, res4, res5"),
        ({"label": 6}, "label must be in 0..5, got 6"),
    ],
)
def test_impossible_arguments(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        viewer(folder, **options)
