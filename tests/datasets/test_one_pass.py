"""One pass over a video gives what counting and then reading gives, whatever length the file announces."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import DataError
from datasets import video_files
from datasets.one_pass import read_chosen
from datasets.video_files import VideoFiles
from tests.tiny import moving_square, write_video


def last_and_middle(count: int) -> Sequence[int]:
    return [count - 1, count // 2, count // 2]


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("threads", [0, 1])
def test_the_same_as_counting_and_reading(cut: bool, threads: int, tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.avi", moving_square(40))
    if cut:  # it announces 40 frames, and fewer decode
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 4])
    reader = VideoFiles(tmp_path)
    frames, count = read_chosen(file, last_and_middle, threads)
    assert count == reader.count("a.avi")
    assert (count == 40) is not cut
    np.testing.assert_array_equal(frames, reader.read("a.avi", last_and_middle(count)))


def test_a_sound_video_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_video(tmp_path / "a.avi", moving_square(20))
    opened: list[Path] = []
    open_container = video_files.open_container

    def record(file: Path, threads: int) -> cv2.VideoCapture:
        opened.append(file)
        return open_container(file, threads)

    monkeypatch.setattr(video_files, "open_container", record)
    read_chosen(file, last_and_middle)
    assert opened == [file]


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"no frame of the video .*a\.avi can be decoded"):
        read_chosen(tmp_path / "a.avi", last_and_middle)


def test_threads_leave_the_environment_as_it_was(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.avi", moving_square(4))
    before = dict(os.environ)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: read_chosen(file, last_and_middle, 1), range(50)))) == 50
    assert dict(os.environ) == before
