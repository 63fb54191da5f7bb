"""The drawn videos that a start is trained on: what changes in each class, and that a seed gives the same videos."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import drawn_motion
from benchmarks.drawn_motion import CLASSES, draw_states, draw_video

TURNS = {"up": 0, "down": 0, "up_and_back": 1, "down_and_back": 1, "up_and_back_twice": 3}
QUANTITIES = ("across", "height", "size", "opening", "angle")


@pytest.mark.parametrize(("what", "course"), CLASSES)
def test_what_the_class_names_follows_its_course_and_nothing_else_changes(what: str, course: str) -> None:
    rng = np.random.default_rng(0)
    states = draw_states(what, course, frames=41, rng=rng)
    assert states.min() >= 0
    assert states.max() <= 1
    which = QUANTITIES.index(what)
    assert np.ptp(np.delete(states, which, axis=1), axis=0).max() == 0
    changing = states[:, which]
    assert np.ptp(changing) >= 0.4
    steps = np.diff(changing)
    signs = np.sign(steps[abs(steps) > 1e-9])  # at both ends it may rest
    assert np.count_nonzero(np.diff(signs)) == TURNS[course]
    if what != "across":  # left or right
        assert signs[0] == (1 if course.startswith("up") else -1)


def test_both_directions_across_are_one_class() -> None:
    ends = [draw_states("across", "up", frames=9, rng=np.random.default_rng(seed))[[0, -1], 0] for seed in range(20)]
    assert {bool(start < end) for start, end in ends} == {True, False}


def test_a_thing_that_goes_up_is_seen_to_go_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn_motion, "_texture", lambda side, rng: np.zeros((side, side, 3), np.float32))
    white = (np.full((64, 64, 3), 255, np.float32), np.ones((64, 64, 3), np.float32))
    monkeypatch.setattr(drawn_motion, "_sprite", lambda rng: white)
    monkeypatch.setattr(drawn_motion, "_camera", lambda frames, size, rng: np.stack([np.eye(2, 3)] * frames))
    monkeypatch.setattr(drawn_motion, "_wander", lambda frames, rng: np.zeros((frames, 5)))  # small, in a corner below
    pictures = draw_video("height", "up", frames=12, size=64, rng=np.random.default_rng(3))
    rows = [np.average(np.arange(64), weights=picture.astype(float).sum((1, 2))) for picture in pictures]
    assert rows[0] - rows[-1] > 10
    assert np.all(np.diff(rows) < 1)


def test_the_same_seed_gives_the_same_videos(tmp_path: Path) -> None:
    for name in ("one", "two"):
        arguments = [str(tmp_path / name), "--videos", "1", "--size", "32", "--frames", "4", "--seed", "5"]
        assert drawn_motion.main(arguments) == 0
    files = sorted(file.relative_to(tmp_path / "one") for file in (tmp_path / "one").glob("*/*.mp4"))
    assert len(files) == len(CLASSES) == 18
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    video = cv2.VideoCapture(str(tmp_path / "one" / files[0]))
    read, picture = video.read()
    assert read
    assert picture.shape == (32, 32, 3)
