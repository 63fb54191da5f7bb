"""The demo's videos: what moves, and that single frames do not tell."""

import numpy as np
import pytest

from datasets.preparation import demo_videos


def paint(state: tuple[float, float, float, float]) -> np.ndarray:
    """One thing, on black."""
    picture = np.zeros((96, 96, 3), dtype=np.float32)
    demo_videos._paint(picture, demo_videos._sprite(np.random.default_rng(1)), np.array(state))
    return picture


@pytest.mark.parametrize("motion", demo_videos.MOTIONS)
def test_no_single_frame_tells_the_class(motion: str) -> None:
    """In the first, a middle and the last frame all four numbers are uniform and uncorrelated, whatever the class."""
    rng = np.random.default_rng(5)
    count = 2000
    states = np.stack([demo_videos.draw_states(motion, frames=24, rng=rng) for _ in range(count)])
    for frame in (0, 11, 23):
        values = np.sort(states[:, frame], axis=0)
        distance = np.abs(values - (np.arange(count)[:, None] + 0.5) / count).max()
        assert distance < 2.2 / count**0.5  # Kolmogorov and Smirnov: chance alone exceeds it once in 8000 trials
        correlation = np.corrcoef(states[:, frame], rowvar=False) - np.eye(4)
        assert np.abs(correlation).max() < 4 / count**0.5


def test_a_picture_depends_on_its_own_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what holds for the states holds for the pictures: the states in reverse give the pictures in reverse."""
    monkeypatch.setattr(demo_videos, "NOISE", (0, 0))
    states = demo_videos.draw_states("rotate_clockwise", frames=5, rng=np.random.default_rng(2))
    pictures = []
    for order in (states, states[::-1]):
        monkeypatch.setattr(demo_videos, "draw_states", lambda *_, order=order, **__: order)
        pictures.append(demo_videos.draw_video("rotate_clockwise", frames=5, size=64, rng=np.random.default_rng(3)))
    np.testing.assert_array_equal(pictures[0], pictures[1][::-1])
    assert np.abs(pictures[0][0].astype(int) - pictures[0][4]).mean() > 2, "nothing moves"


@pytest.mark.parametrize("motion", demo_videos.MOTIONS)
def test_only_the_named_number_changes_and_in_its_direction(motion: str) -> None:
    states = demo_videos.draw_states(motion, frames=8, rng=np.random.default_rng(4))
    which, direction = demo_videos.MOTIONS[motion]
    steps = (np.diff(states, axis=0) + 0.5) % 1.0 - 0.5
    assert (steps[:, which] * direction >= demo_videos.SPEED[0] - 1e-9).all()
    assert (steps[:, which] * direction <= demo_videos.SPEED[1] + 1e-9).all()
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
    ratio = demo_videos.RADIUS[1] / demo_videos.RADIUS[0]
    assert areas[1] / areas[0] == pytest.approx(ratio, rel=0.15)  # the area goes with the radius squared
    assert areas[2] / areas[1] == pytest.approx(ratio, rel=0.15)
