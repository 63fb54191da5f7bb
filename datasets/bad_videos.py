"""Training videos that cannot be read: counted over all workers, logged once; too many of them stop the run."""

import logging

import torch

from common.errors import DataError

log = logging.getLogger("sifa.data")


class BadVideos:
    """The videos of a list that could not be read, shared by all loader processes of one training process.

    Args:
        num_videos: of the list.
        max_fraction: the share of them that may fail, in [0, 1).

    Raises:
        ValueError: max_fraction is out of range.
    """

    def __init__(self, num_videos: int, max_fraction: float) -> None:
        if not 0 <= max_fraction < 1:
            raise ValueError(f"max_bad_fraction must be in [0, 1), got {max_fraction}")
        self.max_fraction = max_fraction
        # In shared memory, a byte for each video: each worker marks the videos that fail in it and counts all marks.
        self._failed = torch.zeros(num_videos, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return int(self._failed.count_nonzero())

    def add(self, video: int, error: DataError) -> None:
        """Counts and logs a video that failed; does nothing if it is counted already.

        Args:
            video: index in the list.
            error: why the video cannot be read.

        Raises:
            DataError: more videos failed than are allowed.
        """
        if self._failed[video]:
            return
        self._failed[video] = 1
        count, num_videos = len(self), len(self._failed)
        if count > self.max_fraction * num_videos:
            allowed = f"dataset.max_bad_fraction {self.max_fraction:g} allows {int(self.max_fraction * num_videos)}"
            raise DataError(f"{count} of {num_videos} videos cannot be read, {allowed}; the latest: {error}")
        log.warning(f"{error}; another video is drawn instead ({count} of {num_videos} so far)")
