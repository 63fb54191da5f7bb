"""How much moves in a video, by its pixels alone: which moment is worth a picture, and whether any is."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.video_files import open_video
from sifa.video_stream import read_frames

_CELLS = 16  # a frame is compared in 16 x 16 cells: their means hide noise
_CUT = 4.0  # a step counts as 4 times its larger neighbour at most: a cut is not the strongest motion
_STILL = 0.15, 1.0  # "hardly any motion": a cell changes by less than this share of the contrast, or grey levels


def changes(video: Path) -> np.ndarray:
    """How much has changed in a video up to each of its frames: (frames,), grey levels, increasing from 0.

    A step is the mean change of the cells from one frame to the next, in the centre square.

    Raises:
        DataError: the video does not open.
    """
    steps, previous = [0.0], None
    with open_video(video) as capture:
        for frame in read_frames(capture):
            cells = _cells(frame)
            if previous is not None:
                steps.append(float(np.abs(cells - previous).mean()))
            previous = cells
    around = np.pad(steps, 1)
    return np.cumsum(np.minimum(steps, _CUT * np.maximum(around[:-2], around[2:])))


def strongest_pair(changed: np.ndarray, shown: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The pair of neighbouring frames between which most changes.

    Args:
        changed: of the video, see `changes`.
        shown: (clips, T), the frames of the video that stand for the frames of each clip.

    Returns:
        The clip and the frame t of the pair t and t+1. Of equal ones, that nearest to the middle of its clip, and then
        the clip nearest to the middle of the video.
    """
    levels = changed[np.minimum(np.asarray(shown), len(changed) - 1)]
    change = levels[:, 1:] - levels[:, :-1]
    clips, pairs = change.shape
    equal = np.argwhere(change >= change.max())
    from_middle = np.abs(2 * equal - (clips - 1, pairs - 1))
    clip, t = equal[np.lexsort((from_middle[:, 0], from_middle[:, 1]))[0]]
    return int(clip), int(t)


def is_still(frame: np.ndarray, following: np.ndarray) -> bool:
    """Whether hardly anything moves between two frames, uint8 (H, W, 3): no cell changes much for their contrast."""
    one, other = _cells(frame), _cells(following)
    contrast = float(np.concatenate([one, other]).std())
    return float(np.abs(one - other).max()) < max(_STILL[0] * contrast, _STILL[1])


def _cells(frame: np.ndarray) -> np.ndarray:
    """Mean grey levels of the cells of the centre square, float32 (_CELLS, _CELLS)."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    grey = cv2.cvtColor(frame[top : top + side, left : left + side], cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
