"""The demo's videos: what moves, that single frames do not tell, and that a seed decides everything."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tools import make_demo_videos as demo


def run(folder: Path, *options: str) -> int:
    return demo.main([str(folder), "--train=2", "--val=1", "--size=32", "--frames=6", "--workers=1", *options])


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.mp4")}


def paint(state: tuple[float, float, float, float]) -> np.ndarray:
    """One thing, on black."""
    picture = np.zeros((96, 96, 3), dtype=np.float32)
    demo._paint(picture, demo._sprite(np.random.default_rng(1)), np.array(state))
    return picture


def test_every_class_and_split_is_written_and_decodes(tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    expected = {f"train/{motion}/000{number}.mp4" for motion in demo.MOTIONS for number in range(2)}
    expected |= {f"val/{motion}/0000.mp4" for motion in demo.MOTIONS}
    assert set(contents(tmp_path)) == expected
    assert len(demo.MOTIONS) == 8
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


@pytest.mark.parametrize("motion", demo.MOTIONS)
def test_no_single_frame_tells_the_class(motion: str) -> None:
    """In the first, a middle and the last frame all four numbers are uniform and uncorrelated, whatever the class."""
    rng = np.random.default_rng(5)
    count = 2000
    states = np.stack([demo.draw_states(motion, frames=24, rng=rng) for _ in range(count)])
    for frame in (0, 11, 23):
        values = np.sort(states[:, frame], axis=0)
        distance = np.abs(values - (np.arange(count)[:, None] + 0.5) / count).max()
        assert distance < 2.2 / count**0.5  # Kolmogorov and Smirnov: chance alone exceeds it once in 8000 trials
        correlation = np.corrcoef(states[:, frame], rowvar=False) - np.eye(4)
        assert np.abs(correlation).max() < 4 / count**0.5


def test_a_picture_depends_on_its_own_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what holds for the states holds for the pictures: the states in reverse give the pictures in reverse."""
    monkeypatch.setattr(demo, "NOISE", (0, 0))
    states = demo.draw_states("rotate_clockwise", frames=5, rng=np.random.default_rng(2))
    pictures = []
    for order in (states, states[::-1]):
        monkeypatch.setattr(demo, "draw_states", lambda *_, order=order, **__: order)
        pictures.append(demo.draw_video("rotate_clockwise", frames=5, size=64, rng=np.random.default_rng(3)))
    np.testing.assert_array_equal(pictures[0], pictures[1][::-1])
    assert np.abs(pictures[0][0].astype(int) - pictures[0][4]).mean() > 2, "nothing moves"


@pytest.mark.parametrize("motion", demo.MOTIONS)
def test_only_the_named_number_changes_and_in_its_direction(motion: str) -> None:
    states = demo.draw_states(motion, frames=8, rng=np.random.default_rng(4))
    which, direction = demo.MOTIONS[motion]
    steps = (np.diff(states, axis=0) + 0.5) % 1.0 - 0.5
    assert (steps[:, which] * direction >= demo.SPEED[0] - 1e-9).all()
    assert (steps[:, which] * direction <= demo.SPEED[1] + 1e-9).all()
    assert not np.delete(steps, which, axis=1).any()


def test_states_are_places_angles_and_sizes() -> None:
    # An eighth of 96 pixels is 12: what leaves on the right and at the bottom comes in on the left and at the top.
    np.testing.assert_allclose(
        paint((0.975, 0.3, 0.1, 0.5)), np.roll(paint((0.85, 0.3, 0.1, 0.5)), 12, axis=1), atol=0.01
    )
    np.testing.assert_allclose(
        paint((0.3, 0.975, 0.1, 0.5)), np.roll(paint((0.3, 0.85, 0.1, 0.5)), 12, axis=0), atol=0.01
    )
    # A quarter of a turn, clockwise as one sees it. The pixel (48, 48) is the middle of rows and columns 1 to 95.
    before, after = paint((0.5, 0.5, 0.1, 0.5))[1:, 1:], paint((0.5, 0.5, 0.35, 0.5))[1:, 1:]
    np.testing.assert_allclose(after, np.rot90(before, -1), atol=0.01)
    assert np.abs(before - after).mean() > 5, "the thing looks the same after a quarter of a turn"
    areas = [(paint((0.5, 0.5, 0.1, size)).max(axis=2) > 1).mean() for size in (0.0, 0.5, 1.0)]
    ratio = demo.RADIUS[1] / demo.RADIUS[0]
    assert areas[1] / areas[0] == pytest.approx(ratio, rel=0.15)  # the area goes with the radius squared
    assert areas[2] / areas[1] == pytest.approx(ratio, rel=0.15)


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
    assert capsys.readouterr().err == f"make_demo_videos: {message}\n"


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
