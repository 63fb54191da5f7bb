"""Frames of a video file that are chosen by its length, which is known for sure only at its end."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from common.errors import DataError
from datasets.decoders import Decoder, InexactError, SeekableVideo, choose_decoder
from datasets.limits import check_clip_size
from datasets.video_files import VideoFiles, check_video_file, open_video
from datasets.video_formats import codec_hint


def read_chosen(file: Path, choose: Callable[[int], Sequence[int]], threads: int = 0) -> tuple[np.ndarray, int]:
    """Decodes the frames of a video at the chosen positions.

    torchcodec seeks to them, in files where frames are found by their number. Their count is then that of their times,
    and the last frame must decode, too. Other files are decoded once from their start, and the positions chosen by the
    length that the file announces. If another number of frames decodes, the video is decoded a second time, so that the
    result is that of `VideoFiles.count` and `VideoFiles.read`.

    Args:
        file: the video.
        choose: from a number of frames to the positions of those that are wanted, at least one.
        threads: of the decoder; 0: one for each core.

    Returns:
        The frames, uint8 (T, H, W, 3), RGB, and the number of frames that decode.

    Raises:
        DataError: see `datasets.readers.Reader`.
    """
    decoder: Decoder = "opencv"  # which need not convert the frames between
    if choose_decoder() == "torchcodec":
        check_video_file(file)
        try:
            video = SeekableVideo(file, threads=threads)
            decoder = "torchcodec" if video.only_here else "opencv"
            return video.read([*choose(len(video)), len(video) - 1])[0][:-1], len(video)
        except InexactError:
            pass  # what is wrong is found from the start of the file
    frames, count = _decode(file, choose, threads, decoder)
    positions = choose(count)
    if not set(positions) <= frames.keys():
        return VideoFiles(file.parent).read(file.name, positions), count
    return np.stack([frames[position] for position in positions]), count


def _decode(
    file: Path, choose: Callable[[int], Sequence[int]], threads: int, decoder: Decoder
) -> tuple[dict[int, np.ndarray], int]:
    """The frames at the positions that the announced length gives, as far as they decode, and the true length."""
    frames: dict[int, np.ndarray] = {}
    count = 0
    with open_video(file, threads, decoder=decoder) as capture:
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
