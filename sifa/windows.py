"""Predictions along a long video or a camera: windows of equal length, each classified as a video of its own."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sifa.predictor import Predictor


@dataclass(frozen=True)
class Window:
    """Frames start..end-1 of a video and the probabilities of the classes, (classes,)."""

    start: int
    end: int
    probabilities: Tensor


def predict_windows(frames: Iterable[np.ndarray], predictor: Predictor, length: int, stride: int) -> Iterator[Window]:
    """Classifies every `length` frames, at distances of `stride` frames, as soon as the frames are there.

    The last window ends with the last frame, at whatever distance. A stream shorter than one window is one window.
    Only the crops of one window are in memory.

    Args:
        frames: uint8 (H, W, 3), RGB, one by one.
        predictor: its clips and crops are those of each window.
        length: frames of a window.
        stride: frames from the start of one window to the next.

    Raises:
        UserError: the probabilities are not finite.
    """
    crops: deque[Tensor] = deque(maxlen=length)  # each (num_crops, 1, S, S, 3)
    predicted_end = end = 0
    for end, frame in enumerate(frames, start=1):
        crops.append(predictor.crops(frame[None]))
        if end >= length and (end - length) % stride == 0:
            yield _predict(list(crops), end, predictor)
            predicted_end = end
    if predicted_end < end:
        yield _predict(list(crops), end, predictor)


def _predict(crops: list[Tensor], end: int, predictor: Predictor) -> Window:
    """The window whose last frame is end - 1."""
    clips = [torch.cat([crops[i] for i in positions], dim=1) for positions in predictor.positions(len(crops))]
    return Window(end - len(crops), end, predictor.probabilities(torch.cat(clips)).mean(0))
