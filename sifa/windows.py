"""Windows of equal length along a stream of frames, as soon as their frames are there."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

Frame = TypeVar("Frame")


@dataclass(frozen=True)
class Window:
    """Frames start..end-1 of a video and the probabilities of the classes, (classes,)."""

    start: int
    end: int
    probabilities: Tensor


def cut_windows(frames: Iterable[Frame], length: int, stride: int) -> Iterator[tuple[int, list[Frame]]]:
    """Every `length` frames, at distances of `stride` frames, each with the number of frames that were read.

    The last window ends with the last frame, at whatever distance. A stream shorter than one window is one window.
    Only the frames of one window are in memory.

    Args:
        frames: of any kind, one by one.
        length: frames of a window.
        stride: frames from the start of one window to the next.

    Raises:
        ValueError: length or stride is below 1.
    """
    if min(length, stride) < 1:
        raise ValueError(f"a window and its stride must have at least 1 frame, got {length} and {stride}")
    latest: deque[Frame] = deque(maxlen=length)
    yielded = end = 0
    for end, frame in enumerate(frames, start=1):
        latest.append(frame)
        if end >= length and (end - length) % stride == 0:
            yield end, list(latest)
            yielded = end
    if yielded < end:
        yield end, list(latest)
