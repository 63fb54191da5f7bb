"""The report of a run shows frames of its worst videos from the folder that the scores name."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.readers import open_reader
from sifa.report import read_spread, write_report
from tests.visualization.test_report import Page, scores
from visualization import report_figures


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Frames of the videos but the last."""
    for video in range(5):
        folder = tmp_path / "frames" / f"v<{video}>"
        folder.mkdir(parents=True)
        for i in range(1, 9):
            cv2.imwrite(str(folder / f"{i:05d}.jpg"), np.full((20, 30, 3), 10 * i, np.uint8))
    return tmp_path / "frames"


def test_the_worst_videos_with_frames_where_there_are_any(root: Path, tmp_path: Path) -> None:
    page = Page(write_report(scores(root), tmp_path / "out").read_text())
    frames = [source for source in page.sources if source.startswith("data:image/jpeg")]
    assert len(frames) == 2, "three are wrong, one has no frames"
    assert re.search(r"No frames: .*v<5>", page.text)
    assert "(10.0 %) taken for walk (70.0 %)" in page.text


def test_frames_of_a_whole_video(root: Path) -> None:
    strip = report_figures.strip(read_spread(open_reader("FRAME", root), "v<0>"))
    row = cv2.imdecode(np.frombuffer(strip, np.uint8), cv2.IMREAD_COLOR)
    assert row is not None
    assert row.shape == (report_figures.STRIP_HEIGHT, 6 * 144, 3)
    greys = row[48, 72::144].mean(-1)
    assert np.all(np.diff(greys) > 5), "in the order of time"


def test_frames_that_are_gone(tmp_path: Path) -> None:
    page = Page(write_report(scores(tmp_path / "gone"), tmp_path / "out").read_text())
    assert "No frames: " in page.text
    assert page.text.count("taken for") > 3
