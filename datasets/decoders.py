"""The decoder of video files: torchcodec, which can seek, where it gives the very frames that OpenCV gives."""

import importlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch

from common.errors import DataError, one_line
from datasets.frame_times import Window
from datasets.limits import check_clip_size, check_frame_size
from datasets.video_formats import has_time_stamps, local_name, open_container

Decoder = Literal["auto", "torchcodec", "opencv"]
DecoderDevice = Literal["cpu", "cuda"]

# The standards of these codecs say what each pixel is. MPEG-4, MPEG-2, WMV and ProRes leave rounding to the decoder.
_EXACT_CODECS = ("h264", "hevc", "vp8", "vp9")
# With more bits, versions of FFmpeg convert colours differently.
_EXACT_PIXELS = frozenset(f"yuv{jpeg}{sampling}p" for jpeg in ("", "j") for sampling in (420, 422, 444))
_ONLY_TORCHCODEC = ("av1",)  # OpenCV's own FFmpeg decodes it with a GPU alone


@lru_cache
def _torchcodec() -> tuple[Any, str]:
    """The module torchcodec, or None and the reason why it cannot be used."""
    try:
        module = importlib.import_module("torchcodec")
        importlib.import_module("torchcodec.decoders")
        module._core.get_ffmpeg_library_versions()  # loads FFmpeg's libraries
        module._core._test_frame_pts_equality  # noqa: B018 (an internal function, without which there is no certainty)
    except ModuleNotFoundError as error:
        return None, "it is not installed" if error.name == "torchcodec" else f"it does not load: {one_line(error)}"
    except Exception as error:  # whatever torchcodec and the loader of FFmpeg's libraries raise
        reason = next(filter(None, str(error).splitlines()), type(error).__name__)
        return None, f"it does not load: {one_line(reason)[:200]}"
    return module, ""


def choose_decoder(wanted: Decoder = "auto", device: DecoderDevice = "cpu") -> Literal["torchcodec", "opencv"]:
    """The decoder that serves.

    Args:
        wanted: auto: torchcodec where it can be used, or else OpenCV.
        device: cuda: the decoder of a GPU (NVDEC), for which there is torchcodec alone.

    Raises:
        DataError: torchcodec is wanted and cannot be used, or there is no GPU.
        ValueError: there is no decoder of this name.
    """
    if wanted not in ("auto", "torchcodec", "opencv") or device not in ("cpu", "cuda"):
        raise ValueError(f"decoder must be auto, torchcodec or opencv, device cpu or cuda, got {wanted!r}, {device!r}")
    if wanted == "opencv" and device == "cpu":
        return "opencv"
    if device == "cuda" and wanted == "opencv":
        raise DataError("dataset.decoder_device cuda goes with dataset.decoder torchcodec, got opencv")
    module, reason = _torchcodec()
    if module is None and (wanted == "torchcodec" or device == "cuda"):
        raise DataError(f"the decoder torchcodec cannot be used, {reason}: see docs/install.md, or set it to opencv")
    if device == "cuda" and not torch.cuda.is_available():
        raise DataError("dataset.decoder_device is cuda, and PyTorch finds no GPU")
    return "torchcodec" if module else "opencv"


def describe_decoder(wanted: Decoder, device: DecoderDevice) -> str:
    """A line about the decoder that serves, with versions, and why it is not torchcodec. Raises as `choose_decoder`."""
    if choose_decoder(wanted, device) == "torchcodec":
        module = _torchcodec()[0]
        ffmpeg = module._core.get_ffmpeg_library_versions()["ffmpeg_version"]
        place = ", on the GPU, which was never tried" if device == "cuda" else ""
        return f"torchcodec {module.__version__} with FFmpeg {ffmpeg}{place}"
    reason = "" if wanted == "opencv" else f" (torchcodec cannot be used: {_torchcodec()[1]})"
    return f"OpenCV {cv2.__version__}{reason}"


class InexactError(Exception):
    """torchcodec does not find a frame by its number, or cannot decode it."""


class SeekableVideo:
    """A video of which torchcodec finds each frame by its number, at the cost of the frames since the last key frame.

    Args:
        file: the video, a regular file.
        device: that decodes it.
        threads: of FFmpeg's decoder; 0: one for each core.
        window: the only frames that will be read. With it the file is not read whole to find the times of all frames.

    Raises:
        InexactError: it is of a kind for which this is not certain: its container has no exact time stamps, its codec
            leaves pixels to the decoder, or torchcodec cannot open it.
        DataError: it has too many pixels.
    """

    def __init__(
        self, file: Path, device: DecoderDevice = "cpu", threads: int = 1, window: Window | None = None
    ) -> None:
        self.file, self._window = file, window
        self._first = window.first if window else 0
        module, reason = _torchcodec()
        if module is None or not has_time_stamps(file):
            raise InexactError(reason or "its container has no exact time stamps")
        self.core = module._core
        try:
            self._decoder = module.decoders.VideoDecoder(
                local_name(file),
                dimension_order="NHWC",
                device=device,
                num_ffmpeg_threads=threads,
                custom_frame_mappings=window.mapping if window else None,
            )
        except Exception as error:  # torchcodec raises what FFmpeg and its own code find, in several classes
            raise InexactError(one_line(error)) from None
        self.data = self._decoder.metadata
        if not (self.only_here or (self.data.codec in _EXACT_CODECS and self.data.pixel_format in _EXACT_PIXELS)):
            raise InexactError(f"its codec {self.data.codec} leaves pixels to the decoder")
        check_frame_size(f"the video {file}", self.data.width or 0, self.data.height or 0)

    @property
    def only_here(self) -> bool:
        """Whether OpenCV lacks the codec."""
        return self.data.codec in _ONLY_TORCHCODEC

    def __len__(self) -> int:
        """The number of its time stamps, which is that of frames if all decode. Not to be used with a window."""
        return len(self._decoder)

    def read(self, positions: Sequence[int]) -> tuple[np.ndarray, list[float]]:
        """Decodes frames: uint8 (T, H, W, 3), RGB; and their times in seconds after the first frame that is known.

        Args:
            positions: in any order.

        Raises:
            InexactError: a frame does not decode, has another size than the first, or the decoder found another one.
            DataError: the clip has too many pixels.
        """
        wanted, places = np.unique(np.subtract(positions, self._first), return_inverse=True)
        height, width = self.data.height, self.data.width
        check_clip_size(f"the video {self.file}", len(positions), width, height)
        try:
            frames = self._decoder.get_frames_at(wanted.tolist())
        except Exception as error:  # as above
            raise InexactError(one_line(error)) from None
        clip, times = frames.data.cpu().numpy(), frames.pts_seconds.tolist()
        if clip.shape[1:] != (height, width, 3):
            raise InexactError(f"its frames have {clip.shape[2]}x{clip.shape[1]} pixels, not {width}x{height}")
        for position, time in zip(wanted.tolist(), times, strict=True):
            if not self._has_time(position, time):
                raise InexactError(f"the frame at {time:g} s is not frame {position + self._first}")
        start = self.data.begin_stream_seconds or 0
        in_order = len(wanted) == len(positions) and (np.diff(places) > 0).all()
        return clip if in_order else clip[places], [times[place] - start for place in places]

    def _has_time(self, position: int, seconds: float) -> bool:
        """Whether a frame, counted from the first one that is known, has a time, to the bit."""
        if self._window:
            return self._window.seconds[position] == seconds
        return self.core._test_frame_pts_equality(
            self._decoder._decoder, frame_index=position, pts_seconds_to_test=seconds
        )


class Capture(Protocol):
    """A video that is read from its start: the part of `cv2.VideoCapture` that is used. Frames are (H, W, 3), BGR."""

    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def read(self) -> tuple[bool, Any]: ...
    def get(self, what: int, /) -> float: ...
    def release(self) -> None: ...


class TorchcodecCapture:
    """A video from its start by torchcodec; from the first frame on that it does not find, by OpenCV.

    So frame i is the i-th that decodes, as from OpenCV alone.

    Args:
        video: to read.
    """

    def __init__(self, video: SeekableVideo) -> None:
        self._video = video
        self._position = 0  # of the next frame
        self._frame: np.ndarray | None = None  # (H, W, 3), RGB
        self._seconds = 0.0
        self._rest: cv2.VideoCapture | None = None

    def grab(self) -> bool:
        """Decodes the next frame; False at the end."""
        while self._rest is None and self._position < len(self._video):
            self._position += 1
            try:
                (self._frame,), (self._seconds,) = self._video.read([self._position - 1])
                return True
            except InexactError:
                if not self._video.only_here:
                    self._rest = open_container(self._video.file)
                    for _ in range(self._position - 1):
                        self._rest.grab()
        return self._rest is not None and self._rest.grab()

    def retrieve(self) -> tuple[bool, Any]:
        """Whether there is a frame, and the frame."""
        if self._rest is not None:
            return self._rest.retrieve()
        return self._frame is not None, None if self._frame is None else cv2.cvtColor(self._frame, cv2.COLOR_RGB2BGR)

    def read(self) -> tuple[bool, Any]:
        """Decodes the next frame and returns it as `retrieve`."""
        return self.retrieve() if self.grab() else (False, None)

    def get(self, what: int, /) -> float:
        """A property of the video, of those that `cv2.VideoCapture` has."""
        data = self._video.data
        if what == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self._seconds if self._rest is None else self._rest.get(what)
        known = {
            cv2.CAP_PROP_FPS: data.average_fps_from_header,
            cv2.CAP_PROP_FRAME_COUNT: data.num_frames_from_header or len(self._video),
            cv2.CAP_PROP_FRAME_WIDTH: data.width,
            cv2.CAP_PROP_FRAME_HEIGHT: data.height,
        }
        return known.get(what) or 0

    def release(self) -> None:
        """Closes the files."""
        if self._rest is not None:
            self._rest.release()
        self._frame = None
