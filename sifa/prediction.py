"""The prediction for one of several videos."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """The prediction for a video, or what went wrong with it.

    Args:
        source: the file; for frames in memory, their place in the list.
        frames: of the video.
        views: that were averaged.
        mean: of the views' probabilities, (classes,); None if there is an error.
        error: None if all went well.
    """

    source: Path | int
    frames: int = 0
    views: int = 0
    mean: Tensor | None = None
    error: Exception | None = None

    @property
    def probabilities(self) -> Tensor:
        """(classes,), float32 on the CPU. Raises the error if there is one."""
        if self.mean is None:
            raise self.error or ValueError(f"there is no prediction for {self.source}")
        return self.mean
