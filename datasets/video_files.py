"""The VIDEO format: video files, of which a clip decodes what it needs."""

import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from common.errors import DataError
from common.files import digest
from datasets.annotations import check_relative_path
from datasets.decoders import (
    Capture,
    Decoder,
    DecoderDevice,
    InexactError,
    SeekableVideo,
    TorchcodecCapture,
    choose_decoder,
)
from datasets.frame_times import KnownTimes
from datasets.limits import check_clip_size, check_frame_size, check_regular_file
from datasets.video_formats import codec_hint, open_container

# The reader of a video says once what is wrong with it. FFmpeg and OpenCV would say it too, in lines without the name
# of the file. OpenCV reads this variable when it opens its first video, so it may be set after the import.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

USUAL_RATE = 25.0  # frames per second


class VideoFiles:
    """Frames of video files `root/video_path` (mp4, avi, webm and all other files that OpenCV's FFmpeg decodes).

    Frame i is the i-th frame that decodes, counted from the start of the file, as `tools.extract_frames` writes it.
    torchcodec seeks to it in files where that gives the very same frame (`datasets.decoders.SeekableVideo`). Other
    files, and all of them without torchcodec, are decoded from their start to the last frame of the clip: with a
    variable frame rate or a wrong index, FFmpeg's own seeking would find another frame.

    Args:
        root: folder that the paths of videos are relative to.
        decoder: see `datasets.decoders.choose_decoder`.
        device: of the decoder.
        lengths: the number of frames that decode, by path, where it is known. A file with another number of time stamps
            is decoded from its start.

    Raises:
        DataError: root is no folder, or the decoder cannot be used.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        decoder: Decoder = "auto",
        device: DecoderDevice = "cpu",
        lengths: Mapping[str, int] | None = None,
    ) -> None:
        self.root, self.device = Path(root), device
        if not self.root.is_dir():
            raise DataError(f"the folder of videos {self.root} does not exist or is no folder")
        self.decoder: Decoder = choose_decoder(decoder, device)
        self.lengths = lengths or {}
        self._times = KnownTimes()

    def read(self, video_path: str, positions: Sequence[int]) -> np.ndarray:
        """Decodes frames of a video: uint8 (T, H, W, 3), RGB. See `datasets.readers.Reader`.

        Frames of another size than the first are resized to it, as in extraction.
        """
        check_relative_path(video_path)
        if not positions:
            raise ValueError("positions must name at least one frame, got none")
        file = self.root / video_path
        from_start: Decoder = "opencv"  # which need not convert the frames before
        if self.decoder == "torchcodec":
            check_video_file(file)
            try:
                times = self._times.get(file)
                video = SeekableVideo(file, self.device, window=times.window(positions) if times else None)
                from_start = "torchcodec" if video.only_here else "opencv"
                frames = len(times or video)
                if times is None:
                    self._times.learn(file, frames, video.core)
                if self.lengths.get(video_path, frames) == frames:
                    return video.read(positions)[0]
            except InexactError:
                pass  # what is wrong is found from the start of the file
        indices: dict[int, list[int]] = {}  # position -> indices in the clip
        for index, position in enumerate(positions):
            indices.setdefault(position, []).append(index)
        clip: np.ndarray | None = None
        for position, frame in _decode_frames(file, indices.keys(), from_start):
            if clip is None:
                check_clip_size(f"the video {file}", len(positions), frame.shape[1], frame.shape[0])
                clip = np.empty((len(positions), *frame.shape), dtype=np.uint8)
            first, *others = indices[position]
            cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=clip[first])
            clip[others] = clip[first]
        assert clip is not None
        return clip

    def fingerprint(self, video_path: str, position: int) -> bytes:
        """A digest of the video file, whatever the position. See `datasets.readers.Reader`."""
        check_relative_path(video_path)
        check_regular_file(self.root / video_path, f"the video {self.root / video_path}")
        try:
            return digest(self.root / video_path).encode()
        except OSError as error:
            raise DataError(f"the video {self.root / video_path} cannot be read: {error.strerror}") from None

    def count(self, video_path: str) -> int:
        """How many frames decode, whatever the file announces. See `datasets.readers.Reader`."""
        check_relative_path(video_path)
        frames = _count_frames(self.root / video_path, self.decoder)
        if not frames:
            file = self.root / video_path
            raise DataError(f"no frame of the video {file} can be decoded{codec_hint(file)}")
        return frames

    def uncounted(self, video_path: str) -> str:
        """Nothing: the frames of a video file have no numbers. See `datasets.readers.Reader`."""
        return ""


def decode_with_repeats(file: Path, *, fps: float = 0, num_frames: int = 0) -> Iterator[tuple[np.ndarray, int]]:
    """Decodes all frames of a video, and says for each how often the resampled video has it.

    Args:
        file: the video.
        fps: frame rate of the resampled video, whatever the rate of the file, constant or not: at each multiple of
            1 / fps seconds after the first frame, the latest frame of the file. 0: each frame once.
        num_frames: length of the resampled video: the file is divided into num_frames equal parts, and each gives
            the frame in its middle. A short file gives frames several times. 0: each frame once.

    Yields:
        The frame, uint8 (H, W, 3), BGR, and its number of repeats, 0 if the resampled video does not have it. All
        frames that decode are yielded, so that counting them gives the length of the file.

    Raises:
        DataError: the file is no video.
    """
    repeats: Counter[int] = Counter()
    if num_frames:
        length = _count_frames(file, "auto")
        repeats.update((2 * i + 1) * length // (2 * num_frames) for i in range(num_frames))
    with open_video(file) as capture:
        if fps:
            yield from _repeats_at_rate(capture, fps)
            return
        position = 0
        while (decoded := capture.read())[0]:
            yield decoded[1], repeats[position] if num_frames else 1
            position += 1


def check_video_file(file: Path) -> None:
    """Checks that a video is there. Raises DataError if it is missing, is no regular file, or is empty."""
    if not file.exists():
        raise DataError(f"the video {file} is missing")
    check_regular_file(file, f"the video {file}")
    if not file.stat().st_size:
        raise DataError(f"the video {file} is empty")


@contextmanager
def open_video(file: Path, threads: int = 0, *, decoder: Decoder = "auto") -> Iterator[Capture]:
    """Opens a video for decoding from its start, and releases it at the end.

    Frames are turned upright by the rotation in the metadata of the video.

    Args:
        file: the video.
        threads: of the decoder; 0: one for each core.
        decoder: see `datasets.decoders.choose_decoder`.

    Raises:
        DataError: the file is missing, is empty, is no video but a playlist or something else, or has too many pixels.
    """
    check_video_file(file)
    capture = _open_by_torchcodec(file, threads) if choose_decoder(decoder) == "torchcodec" else None
    capture = capture or _open_by_opencv(file, threads)
    try:
        yield capture
    finally:
        capture.release()


def _open_by_torchcodec(file: Path, threads: int) -> Capture | None:
    try:
        return TorchcodecCapture(SeekableVideo(file, threads=threads))
    except InexactError:
        return None


def _open_by_opencv(file: Path, threads: int) -> Capture:
    capture = open_container(file, threads)
    try:
        if not capture.isOpened():
            raise DataError(f"no frame of the video {file} can be decoded{codec_hint(file)}")
        width, height = (int(capture.get(what)) for what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        check_frame_size(f"the video {file}", width, height)
    except BaseException:
        capture.release()
        raise
    return capture


def frame_rate(capture: Capture) -> float:
    """Frames per second; 25 if the file or camera gives no plausible rate."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate < 1000 else USUAL_RATE


def _count_frames(file: Path, decoder: Decoder) -> int:
    """How many frames decode. OpenCV comes first: it need not convert their colours."""
    try:
        frames = _count_grabbed(file, "opencv")
    except DataError:
        frames = 0
    return frames or _count_grabbed(file, decoder)


def _count_grabbed(file: Path, decoder: Decoder) -> int:
    with open_video(file, decoder=decoder) as capture:
        frames = 0
        while capture.grab():
            frames += 1
    return frames


def _decode_frames(file: Path, positions: Collection[int], decoder: Decoder) -> Iterator[tuple[int, np.ndarray]]:
    """Decodes the frames at some positions, in their order in the video. All have the size of the video's first frame.

    Yields:
        The position and the frame, uint8 (H, W, 3), BGR.
    """
    last = max(positions)
    size: tuple[int, int] | None = None  # W, H
    with open_video(file, decoder=decoder) as capture:
        for position in range(last + 1):
            if not capture.grab():
                if position == 0:
                    raise DataError(f"no frame of the video {file} can be decoded{codec_hint(file)}")
                raise DataError(f"the video {file} ends after {position} frames, frame {last} is wanted")
            if position not in positions and position > 0:
                continue  # the first frame is always decoded, because it gives the size
            decodes, frame = capture.retrieve()
            if not decodes:
                raise DataError(f"frame {position} of the video {file} does not decode")
            if size is None:
                size = frame.shape[1], frame.shape[0]
            if position not in positions:
                continue
            if (frame.shape[1], frame.shape[0]) != size:
                frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            yield position, frame


def _repeats_at_rate(capture: Capture, fps: float) -> Iterator[tuple[np.ndarray, int]]:
    """Decodes all frames of a video; each is yielded with the number of multiples of 1 / fps at which it is shown."""
    usual_step = 1 / frame_rate(capture)  # seconds
    shown: np.ndarray | None = None
    start = now = 0.0
    total = 0  # repeats so far
    while (decoded := capture.read())[0]:
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if shown is None:
            start = time
        else:
            # A timestamp may be broken: unknown, backwards, or minutes away. Then the usual step is assumed.
            now = time - start if now < time - start < now + 60 else now + usual_step
            repeats = max(math.ceil((now - 1e-4) * fps) - total, 0)
            total += repeats
            yield shown, repeats
        shown = decoded[1]
    if shown is not None:
        yield shown, max(math.ceil((now + usual_step - 1e-4) * fps) - total, 0 if total else 1)
