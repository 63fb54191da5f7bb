"""The times of the frames of long videos, kept so that each file is read whole only once in a process."""

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_LONG = 2000  # frames: the times of a shorter file are read again in less time than it takes to decode a clip
_MOST_FRAMES = 4_000_000  # of all files that are kept: 17 bytes each


@dataclass(frozen=True)
class Window:
    """Some frames of a video in a row, from a key frame on.

    Args:
        first: number of the first of them in the video.
        mapping: their times in torchcodec's format, JSON.
        seconds: their times.
    """

    first: int
    mapping: str
    seconds: list[float]


@dataclass(frozen=True)
class FrameTimes:
    """What torchcodec finds when it reads a file whole.

    Args:
        starts, durations: of each frame in the order in which they are shown, in units of the file, int64 (F,).
        is_key: whether it is a key frame, bool (F,).
        unit: of the file, as a fraction of a second.
    """

    starts: np.ndarray
    durations: np.ndarray
    is_key: np.ndarray
    unit: tuple[int, int]

    def __len__(self) -> int:
        return len(self.starts)

    def window(self, positions: Sequence[int]) -> Window:
        """The frames that must be known to decode those at some positions: from the key frame before them on."""
        keys = np.flatnonzero(self.is_key[: min(positions) + 1])
        first = int(keys[-1]) if len(keys) else 0
        rows = slice(first, max(positions) + 2)  # with the frame after them, which says when the last one ends
        numbers = zip(*(array[rows].tolist() for array in (self.starts, self.durations, self.is_key)), strict=True)
        frames = [{"pts": start, "duration": length, "key_frame": int(is_key)} for start, length, is_key in numbers]
        # In torchcodec's order, which gives the same bits.
        seconds = self.starts[rows].astype(np.float64) * self.unit[0] / self.unit[1]
        return Window(first, json.dumps({"frames": frames}), seconds.tolist())


class KnownTimes:
    """The times of the long files that were read last. It can be pickled."""

    def __init__(self) -> None:
        self._times: OrderedDict[tuple[str, int, int], FrameTimes] = OrderedDict()

    def get(self, file: Path) -> FrameTimes | None:
        """The times of a file, if they are known and the file is the same as then."""
        key = _key(file)
        if key in self._times:
            self._times.move_to_end(key)
        return self._times.get(key)

    def learn(self, file: Path, frames: int, core: Any) -> None:
        """Keeps the times of a file, if it is long, and if this torchcodec tells them.

        Args:
            file: the video.
            frames: their number.
            core: torchcodec's module of operators.
        """
        if frames < _LONG or not hasattr(core.ops, "_blocks_demuxer_scan"):  # an internal function, which may change
            return
        try:
            demuxer = core.ops._blocks_create_demuxer_from_file(os.path.abspath(file))
            core.ops._blocks_demuxer_add_stream(demuxer, media_type="video")
            starts, durations, is_key, *unit = core.ops._blocks_demuxer_scan(demuxer)
        except Exception:  # as torchcodec's decoder; then the file is read whole at each access
            return
        if len(starts) == frames:
            self._times[_key(file)] = FrameTimes(starts.numpy(), durations.numpy(), is_key.numpy(), (unit[0], unit[1]))
        while len(self._times) > 1 and sum(map(len, self._times.values())) > _MOST_FRAMES:
            self._times.popitem(last=False)


def _key(file: Path) -> tuple[str, int, int]:
    status = os.stat(file)
    return os.path.abspath(file), status.st_size, status.st_mtime_ns
