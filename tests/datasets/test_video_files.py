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
from datasets.video_files import VideoFiles, decode_with_repeats

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


def write_video(file: Path, frames: int = 3, size: tuple[int, int] = (32, 32)) -> Path:
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 * i + 10, dtype=np.uint8))
    writer.release()
    return file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ffconcat version 1.0\nfile other.mp4\n", r"v.mp4 is a playlist \(ffconcat\), which names other files"),
        ("\ufeff#EXTM3U\n#EXTINF:1,\nother.mp4\n", r"v.mp4 is a playlist \(M3U or HLS\)"),
        ("a text is a video of letters for FFmpeg\n" * 100, "no frame of the video .*v.mp4 can be decoded$"),
    ],
)
def test_a_text_opens_no_other_file(tmp_path: Path, text: str, reason: str) -> None:
    write_video(tmp_path / "other.mp4")
    (tmp_path / "v.mp4").write_text(text, encoding="utf-8")
    options = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    for use in (lambda videos: videos.count("v.mp4"), lambda videos: videos.read("v.mp4", [0])):
        with pytest.raises(DataError, match=reason):
            use(VideoFiles(tmp_path))
    assert os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS") == options


def test_a_codec_without_decoder_is_named_with_the_way_out(tmp_path: Path) -> None:
    file = write_video(tmp_path / "v.mp4")
    data = file.read_bytes()
    file.write_bytes(data.replace(b"mp4v", b"av01").replace(b"esds", b"av1C"))
    for use in (lambda videos: videos.count("v.mp4"), lambda videos: videos.read("v.mp4", [1])):
        with pytest.raises(DataError, match=r"v.mp4 can be decoded: its codec is AV1, .* `ffmpeg -i IN -c:v libx264"):
            use(VideoFiles(tmp_path))


def test_large_videos_and_clips_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "v.mp4", frames=17)
    monkeypatch.setenv("SIFA_MAX_FRAME_PIXELS", "1024")
    assert len(VideoFiles(tmp_path).read("v.mp4", range(16))) == 16
    with pytest.raises(DataError, match=r"v.mp4: a clip of 17 frames of 32x32 has more than the 16384 pixels"):
        VideoFiles(tmp_path).read("v.mp4", range(17))
    monkeypatch.setenv("SIFA_MAX_FRAME_PIXELS", "1023")
    with pytest.raises(DataError, match=r"v.mp4 has 32x32 pixels, more than the 1023"):
        VideoFiles(tmp_path).count("v.mp4")


def test_only_regular_files_with_a_name_of_text_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    for use in (VideoFiles.count, lambda videos, path: videos.fingerprint(path, 0)):
        with pytest.raises(DataError, match=r"v.mp4 must be a regular file, it is a pipe, a socket or a device"):
            use(VideoFiles(tmp_path), "v.mp4")
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    folder.mkdir()
    write_video(tmp_path / "w.mp4").rename(folder / "w.mp4")
    with pytest.raises(DataError, match=r"has a name that is not UTF-8: rename it"):
        VideoFiles(folder).count("w.mp4")
