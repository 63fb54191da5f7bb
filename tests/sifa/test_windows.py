"""Windows along a stream of frames: which frames they have, and when they are there."""

from collections.abc import Iterator

import pytest

from sifa.windows import cut_windows


def test_windows_come_as_soon_as_their_frames() -> None:
    read = 0

    def stream() -> Iterator[int]:
        nonlocal read
        for frame in range(40):
            read += 1
            yield frame

    windows = [(end, frames, read) for end, frames in cut_windows(stream(), 16, 10)]
    assert [(end, seen) for end, _, seen in windows] == [(16, 16), (26, 26), (36, 36), (40, 40)]
    assert [frames for _, frames, _ in windows] == [list(range(end - 16, end)) for end in (16, 26, 36, 40)]


def test_fewer_frames_than_a_window_make_one() -> None:
    assert list(cut_windows(range(9), 16, 8)) == [(9, list(range(9)))]
    assert list(cut_windows([], 16, 8)) == []


def test_a_window_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="must have at least 1 frame, got 16 and 0"):
        next(cut_windows(range(9), 16, 0))
