"""Frames of a video file that are chosen by its length, which is known for sure only at its end."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from common.errors import DataError
from datasets.limits import check_clip_size
from datasets.video_files import VideoFiles, open_video
from datasets.video_formats import codec_hint


def read_chosen(file: Path, choose: Callable[[int], Sequence[int]], threads: int = 0) -> tuple[np.ndarray, int]:
    """Decodes a video once and keeps the frames at the chosen positions.

    They are chosen by the length that the file announces. If another number of frames decodes, the video is decoded a
    second time, so that the result is always that of `VideoFiles.count` and `VideoFiles.read`.

    Args:
        file: the video.
        choose: from a number of frames to the positions of those that are wanted, at least one.
        threads: of the decoder; 0: one for each core.

    Returns:
        The frames, uint8 (T, H, W, 3), RGB, and the number of frames that decode.

    Raises:
        DataError: see `datasets.readers.Reader`.
    """
    frames, count = _decode(file, choose, threads)
    positions = choose(count)
    if not set(positions) <= frames.keys():
        return VideoFiles(file.parent).read(file.name, positions), count
    return np.stack([frames[position] for position in positions]), count


def _decode(file: Path, choose: Callable[[int], Sequence[int]], threads: int) -> tuple[dict[int, np.ndarray], int]:
    """The frames at the positions that the announced length gives, as far as they decode, and the true length."""
    frames: dict[int, np.ndarray] = {}
    count = 0
    with open_video(file, threads) as capture:
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = set(choose(announced)) if announced > 0 else set()
        size: tuple[int, int] | None = None  # W, H of the first frame, which all others get
        while capture.grab():
            if (count in wanted or size is None) and (decoded := capture.retrieve())[0]:
                frame = decoded[1]
                if size is None:
                    size = frame.shape[1], frame.shape[0]
                    check_clip_size(f"the video {file}", len(wanted), *size)
                if (frame.shape[1], frame.shape[0]) != size:
                    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
                if count in wanted:
                    frames[count] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            count += 1
    if not count:
        raise DataError(f"no frame of the video {file} can be decoded{codec_hint(file)}")
    return frames, count
