"""Training videos that cannot be read: counted over all workers, logged once; too many stop the run."""

import logging

import torch

from common.errors import DataError

log = logging.getLogger("sifa.data")


class BadVideos:
    """Which videos of a list have failed, known to all loader processes of one training process.

    videos: how many the list has.
    max_fraction: of them may fail, in [0, 1).
    """

    def __init__(self, videos: int, max_fraction: float) -> None:
        if not 0 <= max_fraction < 1:
            raise ValueError(f"max_bad_fraction must be in [0, 1), got {max_fraction}")
        self.max_fraction = max_fraction
        # In shared memory, a byte a video: each worker marks what it meets and counts what all have met.
        self._failed = torch.zeros(videos, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return int(self._failed.count_nonzero())

    def add(self, video: int, error: DataError) -> None:
        """Count and log a video that failed, unless it was already. Raises DataError if it is one too many."""
        if self._failed[video]:
            return
        self._failed[video] = 1
        count, videos = len(self), len(self._failed)
        if count > self.max_fraction * videos:
            allowed = f"dataset.max_bad_fraction {self.max_fraction:g} allows {int(self.max_fraction * videos)}"
            raise DataError(f"{count} of {videos} videos cannot be read, {allowed}; the latest: {error}")
        log.warning(f"{error}; another video is drawn in its place ({count} of {videos} so far)")
