"""What a linear classifier tells of drawn clips: only what the frames that it is given hold."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.motion_data import Task, Video, splits_of
from benchmarks.motion_readout import READ_OUTS, accuracy, main, pictures_of
from tests.models.test_real_motion import write_videos

SIDE = 64


def brighter(seed: int, ramp: np.ndarray) -> np.ndarray:
    """uint8 (T, 64, 64, 3): one random picture, as bright as `ramp` says, from frame to frame."""
    picture = cv2.resize(np.random.default_rng(seed).random((8, 8)), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    frames = 100 + 60 * ramp[:, None, None] + 40 * picture
    return np.repeat(frames.astype(np.uint8)[..., None], 3, axis=-1)


def videos_of(ramp: np.ndarray) -> list[Video]:
    return [Video(f"{i}.avi", "A", f"speaker {i % 5}", "1", brighter(i, ramp)) for i in range(20)]


def accuracies(name: str, task: Task, videos: list[Video]) -> list[float]:
    splits = splits_of(task, videos)
    pictures = pictures_of(splits, videos)
    return [accuracy(name, task, split, videos, pictures) for split in splits]


def mean_accuracy(name: str, videos: list[Video]) -> float:
    return float(np.mean(accuracies(name, "direction", videos)))


def test_the_direction_of_a_change_is_in_the_order_of_two_frames() -> None:
    videos = videos_of(np.linspace(-1, 1, 33))
    assert mean_accuracy("the first and the last frame", videos) == 100
    assert mean_accuracy("all frames, in order", videos) == 100
    assert mean_accuracy("all frames, blind to order", videos) == 50  # forwards and backwards give the same features


def test_products_of_neighbours_tell_a_direction_that_the_ends_do_not() -> None:
    """Things that go round: the picture of a frame depends on a random phase, its change on the direction."""

    def turning(seed: int) -> np.ndarray:
        phases = np.random.default_rng(seed).random() * 2 * np.pi + np.arange(8) * np.pi / 4
        rows = np.arange(SIDE) * 2 * np.pi / SIDE
        frames = 128 + 100 * np.sin(phases[:, None] + rows)
        return np.repeat(np.repeat(frames.astype(np.uint8)[:, :, None], SIDE, 2)[..., None], 3, axis=-1)

    videos = [Video(f"{i}.avi", "A", f"speaker {i % 5}", "1", turning(i)) for i in range(40)]
    assert mean_accuracy("products of neighbouring frames", videos) == 100
    assert mean_accuracy("the middle frame", videos) < 75


def test_labels_that_differ_in_the_middle_frame() -> None:
    bump = np.array([0, 0, 0, 1, 1, 0, 0, 0])
    videos = [
        Video(f"{i}.avi", "AB"[i % 2], f"speaker {i // 2 % 5}", "12"[i // 20], brighter(i, bump * (i % 2)))
        for i in range(40)
    ]
    assert accuracies("the middle frame", "labels", videos) == [100, 100]
    assert max(accuracies("the first frame", "labels", videos)) < 80


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_videos(tmp_path)
    assert main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "| task direction, top-1 in % | fold 1 | fold 2 | fold 3 | fold 4 | fold 5 | mean |" in shown
    assert "| task labels, top-1 in % | tested on 1 | tested on 2 | mean |" in shown
    assert all(shown.count(f"| {name} |") == 2 for name in READ_OUTS)
    assert main([str(tmp_path / "none")]) != 0
