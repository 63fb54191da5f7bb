"""The report of a run's scores, with frames of the worst videos from where the scores say they are."""

from functools import partial
from pathlib import Path

import numpy as np

from common.errors import DataError
from datasets.readers import Reader, ReaderOptions, open_reader
from engine.figures import read_figures
from engine.metrics import TOP
from engine.scores import Scores
from visualization import report

STRIP_FRAMES = 6  # of a worst video


def write_report(scores: Scores, folder: Path, *, worst: int = 12, run: Path | None = None) -> Path:
    """Writes report.html, confusion.png and classes.png, see `visualization.report.write_report`.

    Args:
        scores: of `train_val_3d.py --test`.
        folder: for the three files.
        worst: number of wrongly classified videos to show.
        run: output directory of the run, for the curves of its training; None: folder.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder cannot be written.
    """

    def open_frames() -> report.ReadFrames:
        reader = open_reader(
            scores.format,  # type: ignore[arg-type]
            scores.root_path,
            ReaderOptions(frame_template=scores.frame_template, first_frame=scores.first_frame),
        )
        return partial(read_spread, reader)

    figures = read_figures(run or folder)
    return report.write_report(scores, folder, open_frames=open_frames, top=TOP, worst=worst, figures=figures)


def read_spread(reader: Reader, video: str) -> np.ndarray:
    """Frames from the middles of equal parts of a video, uint8 (STRIP_FRAMES, H, W, 3), RGB.

    Raises:
        DataError: they cannot be read.
    """
    count = reader.count(video)
    if not count:
        raise DataError(f"the video {video} has no frames")
    return reader.read(video, [(2 * i + 1) * count // (2 * STRIP_FRAMES) for i in range(STRIP_FRAMES)])
