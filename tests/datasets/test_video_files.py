"""Which frames of a video are chosen, at constant and variable rates and with broken timestamps."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from common.errors import DataError
from datasets import video_files
from datasets.video_files import decode_with_repeats

ROOT = Path(__file__).resolve().parents[2]


class Capture:
    """Plays frames, each a 1 x 1 picture of its number, at given times in seconds."""

    def __init__(self, times: list[float], rate: float) -> None:
        self.times, self.rate, self.position = times, rate, -1

    def read(self) -> tuple[bool, Any]:
        self.position += 1
        return self.position < len(self.times), np.full((1, 1, 3), self.position)

    def get(self, what: int) -> float:
        return self.rate if what == cv2.CAP_PROP_FPS else 1000 * self.times[self.position]


def at_rate(times: list[float], fps: float, rate: float = 10) -> list[int]:
    """Numbers of the frames shown at 0, 1 / fps, 2 / fps, ..."""
    chosen = list(video_files._repeats_at_rate(Capture(times, rate), fps))  # type: ignore[arg-type]
    assert len(chosen) == len(times), "every decoded frame is yielded"
    return [int(frame[0, 0, 0]) for frame, count in chosen for _ in range(count)]


def test_a_constant_rate_is_thinned_and_repeated() -> None:
    times = [i / 10 for i in range(10)]
    assert at_rate(times, 10) == list(range(10))
    assert at_rate(times, 5) == [0, 2, 4, 6, 8]
    assert at_rate(times, 20) == [i // 2 for i in range(20)]
    assert at_rate(times, 4) == [0, 2, 5, 7]  # 0, 0.25, 0.5, 0.75 s
    assert at_rate([7 + time for time in times], 5) == [0, 2, 4, 6, 8], "a late start is no pause"
    assert at_rate([0.0], 5) == [0]


def test_a_variable_rate_follows_the_clock() -> None:
    # A pause between 0.2 and 1.0 s: the last picture before it stays.
    assert at_rate([0, 0.1, 0.2, 1.0, 1.1], 10) == [0, 1, *[2] * 8, 3, 4]
    assert at_rate([0, 0.1, 0.2, 1.0, 1.1], 2) == [0, 2, 3]


@pytest.mark.parametrize("broken", [0.0, -5.0, 1e6])
def test_a_broken_timestamp_counts_as_the_usual_step(broken: float) -> None:
    times = [0, 0.1, 0.2, broken, 0.4 if broken == 0 else broken + 0.1]
    assert at_rate(times, 10) == [0, 1, 2, 3, 4]


def test_so_many_frames_evenly(tmp_path: Path) -> None:
    file = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10, (32, 32))
    for i in range(8):
        writer.write(np.full((32, 32, 3), 20 * i + 10, dtype=np.uint8))
    writer.release()

    def numbers(**options: Any) -> list[int]:
        chosen = decode_with_repeats(file, **options)
        return [round((frame.mean() - 10) / 20) for frame, times in chosen for _ in range(times)]

    assert numbers() == list(range(8))
    assert numbers(num_frames=4) == [1, 3, 5, 7]
    assert numbers(num_frames=1) == [4]
    assert numbers(num_frames=16) == [i // 2 for i in range(16)]
    assert numbers(fps=5) == [0, 2, 4, 6]
    assert len(list(decode_with_repeats(file, num_frames=2))) == 8, "every decoded frame is yielded"
    file.write_bytes(b"no video")
    for options in ({}, {"fps": 5.0}, {"num_frames": 4}):
        with pytest.raises(DataError, match="no frame of the video"):
            numbers(**options)


@pytest.mark.parametrize("level", ["", "16"])
def test_ffmpeg_is_quiet_unless_the_user_says_otherwise(tmp_path: Path, level: str) -> None:
    file = tmp_path / "v.mp4"
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, (32, 32))
    for i in range(8):
        writer.write(np.full((32, 32, 3), 20 * i + 10, dtype=np.uint8))
    writer.release()
    file.write_bytes(file.read_bytes()[:-300])  # mp4 keeps its index at the end
    program = f"""
import cv2  # before the reader, as some tools do
from datasets.video_files import DataError, VideoFiles
try:
    VideoFiles({str(tmp_path)!r}).count("v.mp4")
except DataError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    environment |= {"OPENCV_FFMPEG_LOGLEVEL": level} if level else {}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    *others, last = (done.stderr + done.stdout).splitlines()
    assert last == f"no frame of the video {file} can be decoded"
    assert bool(others) == bool(level), others
