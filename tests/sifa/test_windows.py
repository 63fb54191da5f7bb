"""Windows along a stream of frames: which frames they have, and when they are predicted."""

from collections.abc import Iterator

import numpy as np
import pytest

import sifa
from sifa.predictor import Predictor
from sifa.windows import predict_windows
from tests.tiny import moving_square, write_checkpoint


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    checkpoint = write_checkpoint(tmp_path_factory.mktemp("windows") / "last.pth")
    return sifa.load(checkpoint, num_clips=1, num_crops=1)


def test_windows_are_predicted_as_the_frames_come(predictor: Predictor) -> None:
    frames = moving_square(40)
    frames_read = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal frames_read
        for frame in frames:
            frames_read += 1
            yield frame

    windows = [(window.start, window.end, frames_read) for window in predict_windows(stream(), predictor, 16, 10)]
    assert windows == [(0, 16, 16), (10, 26, 26), (20, 36, 36), (24, 40, 40)]


def test_fewer_frames_than_a_window_make_one(predictor: Predictor) -> None:
    (window,) = predict_windows(moving_square(9), predictor, 16, 8)
    assert (window.start, window.end) == (0, 9)
    assert not list(predict_windows([], predictor, 16, 8))
