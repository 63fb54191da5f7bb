"""The VIDEO storage: files as they were found, of which a clip decodes what it needs."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from common.errors import DataError
from datasets.annotations import check_relative_path

# What is wrong with a video is said once, by whoever reads it. FFmpeg and OpenCV would say it too, in lines without the
# file's name. OpenCV asks for this variable when it opens its first video, so that after its import is early enough.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


class VideoFiles:
    """Frames of video files `root/video_path` (mp4, avi, webm, ... whatever OpenCV's FFmpeg decodes).

    Frame i is the i-th that decodes, counted from the start of the file: the same that `tools.extract_frames` writes.
    No seeking: where a file has a variable frame rate or a wrong index, FFmpeg's seeking ends at another frame. So a
    clip costs the decoding of all frames up to its last.

    Raises DataError if root is no folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"the folder of videos {self.root} does not exist or is no folder")

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """The frames at 0-based `positions` as uint8 (T, H, W, 3), RGB.

        Frames of another size than the first are resized to it, as in extraction. Raises DataError if the file is
        missing or does not decode as far as the last position, and if the path leaves the root.
        """
        check_relative_path(video_path)
        if not positions:
            raise ValueError("positions must name at least one frame, got none")
        file = self.root / video_path
        places: dict[int, list[int]] = {}  # position -> where it stands in the clip
        for index, position in enumerate(positions):
            places.setdefault(position, []).append(index)
        clip: np.ndarray | None = None
        size: tuple[int, int] | None = None
        with opened(file) as capture:
            for position in range(max(positions) + 1):
                if not capture.grab():
                    raise DataError(f"the video {file} ends after {position} frames, frame {max(positions)} is wanted")
                if position not in places and position > 0:
                    continue  # the first tells the size
                there, frame = capture.retrieve()
                if not there:
                    raise DataError(f"frame {position} of the video {file} does not decode")
                if size is None:
                    size = frame.shape[1], frame.shape[0]
                if position not in places:
                    continue
                if (frame.shape[1], frame.shape[0]) != size:
                    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
                if clip is None:
                    clip = np.empty((len(positions), *frame.shape), dtype=np.uint8)
                first, *others = places[position]
                cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=clip[first])
                clip[others] = clip[first]
        assert clip is not None
        return clip

    def encoded(self, video_path: str, position: int) -> bytes:
        """What identifies the video: a digest of its file. Raises DataError if it is missing."""
        check_relative_path(video_path)
        try:
            with open(self.root / video_path, "rb") as stream:
                digest = hashlib.blake2b()
                while block := stream.read(1 << 20):
                    digest.update(block)
                return digest.digest()
        except OSError as error:
            raise DataError(f"the video {self.root / video_path} cannot be read: {error.strerror}") from None

    def count(self, video_path: str) -> int:
        """How many frames decode, whatever the file announces. Raises DataError if none does."""
        check_relative_path(video_path)
        with opened(self.root / video_path) as capture:
            frames = 0
            while capture.grab():
                frames += 1
        if not frames:
            raise DataError(f"no frame of the video {self.root / video_path} can be decoded")
        return frames


def chosen_frames(file: Path, *, fps: float = 0, num_frames: int = 0) -> Iterator[tuple[np.ndarray, int]]:
    """The frames of a video, uint8 (H, W, 3), BGR, each with the number of times that it is wanted (0: not at all).

    fps: a frame for every 1 / fps seconds from the first frame on, the latest that is shown by then; whatever the
        video's own rate, and also where that varies. 0: every frame once.
    num_frames: so many, in the middle of as many equal parts; frames are repeated where the video has fewer.

    Every frame that can be decoded is yielded, so that counting them tells the video's length. Raises DataError if
    the file is no video.
    """
    wanted: Counter[int] = Counter()
    if num_frames:
        with opened(file) as capture:
            length = 0
            while capture.grab():
                length += 1
        wanted.update((2 * i + 1) * length // (2 * num_frames) for i in range(num_frames))
    with opened(file) as capture:
        if fps:
            yield from _at_rate(capture, fps)
            return
        position = 0
        while (got := capture.read())[0]:
            yield got[1], wanted[position] if num_frames else 1
            position += 1


def _at_rate(capture: cv2.VideoCapture, fps: float) -> Iterator[tuple[np.ndarray, int]]:
    rate = capture.get(cv2.CAP_PROP_FPS)
    usual = 1 / rate if 0 < rate < 1000 else 0.04
    shown: np.ndarray | None = None
    start = now = 0.0
    made = 0
    while (got := capture.read())[0]:
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if shown is None:
            start = time
        else:
            # A time may be broken: unknown, backwards, or minutes away. The usual step is then as good as any.
            now = time - start if now < time - start < now + 60 else now + usual
            times = max(math.ceil((now - 1e-4) * fps) - made, 0)
            made += times
            yield shown, times
        shown = got[1]
    if shown is not None:
        yield shown, max(math.ceil((now + usual - 1e-4) * fps) - made, 0 if made else 1)


@contextmanager
def opened(file: Path) -> Iterator[cv2.VideoCapture]:
    """A video as it is decoded, released at the end. Raises DataError if it is none.

    By FFmpeg alone: other backends take a `%` in the name for a series of pictures. Absolute, so that no name looks
    like an address. OpenCV turns frames upright by the rotation in the video's metadata.
    """
    if not file.is_file():
        raise DataError(f"the video {file} is missing")
    if not file.stat().st_size:
        raise DataError(f"the video {file} is empty")
    capture = cv2.VideoCapture(os.path.abspath(file), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise DataError(f"no frame of the video {file} can be decoded")
        yield capture
    finally:
        capture.release()
