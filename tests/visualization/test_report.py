"""The figures of a report are those of the scores, its pictures are there, and no name becomes markup."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from common.errors import DataError
from engine.scores import Scores
from visualization import report, report_figures
from visualization.score_summary import confusion, confusion_table, worst_videos

CLASSES = ["jump", "<script>alert(1)</script>", 'sit & "stay" $x$', "walk"]
LABELS = [0, 0, 1, 1, 2, 2]  # no video of the last class
# What each of three views (clips) of each video takes it for, with certainty 0.7.
VIEWS = [[0, 0, 0], [1, 0, 0], [1, 1, 1], [2, 2, 1], [0, 2, 0], [3, 3, 3]]


def scores(root: Path = Path("frames"), **changes: Any) -> Scores:
    probabilities = np.full((6, 3, 4), 0.1, np.float32)
    for video, views in enumerate(VIEWS):
        probabilities[video, range(3), views] = 0.7
    values: dict[str, Any] = {
        "videos": [f"v<{video}>" for video in range(6)],
        "labels": np.array(LABELS),
        "probabilities": probabilities,
        "classes": CLASSES,
        "clips": 3,
        "crops": 1,
        "list_file": "a<b>.txt",
        "root_path": str(root),
        "format": "FRAME",
        "frame_template": "",
        "first_frame": 1,
    }
    return Scores(**{**values, **changes})


class Page(HTMLParser):
    """The texts of table cells row by row, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text, self.in_table = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.in_table |= tag == "table"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self.in_table &= tag != "table"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1] and self.in_table:
            self.rows[-1][-1] += data


def read_frames(video: str) -> np.ndarray:
    """Frames of all videos but the last."""
    if video == "v<5>":
        raise DataError(f"the video {video} is missing")
    return np.full((6, 20, 30, 3), 100, np.uint8)


def write(folder: Path, scores: Scores) -> Page:
    file = report.write_report(scores, folder, open_frames=lambda: read_frames, top=(1, 3, 5))
    assert file == folder / "report.html"
    return Page(file.read_text())


@pytest.fixture
def page(tmp_path: Path) -> Page:
    return write(tmp_path / "out", scores())


def test_one_view_and_all_views(page: Page) -> None:
    header, top1, top3 = page.rows[:3]
    assert header == ["", "middle viewmiddle clip, centre crop", "all 3 views3 clips x 1 crops"]
    # The middle clip is right about videos 0, 1, 2, 4; the mean of three about 0, 1, 2.
    assert [cell.split()[0] for cell in top1[1:]] == ["66.67", "50.00"]
    assert top1[2] == "50.00 (18.8 to 81.2)"
    assert top3[0] == "top-3, %"
    assert not any(row[0] == "top-5, %" for row in page.rows[:6] if row), "of four classes"


def test_every_class(page: Page) -> None:
    start = next(i for i, row in enumerate(page.rows) if row[0] == "class")
    assert page.rows[start + 1 : start + 4] == [
        [CLASSES[2], "2", "50.0", "0.0", "jump (1)"],
        [CLASSES[1], "2", "50.0", "50.0", f"{CLASSES[2]} (1)"],
        ["jump", "2", "100.0", "100.0", ""],
    ]


def test_the_page_is_whole_and_holds_no_markup_of_names(page: Page, tmp_path: Path) -> None:
    assert "script" not in page.tags
    assert CLASSES[1] in page.text
    assert "a<b>.txt" in page.text
    assert all(source.startswith("data:image/") for source in page.sources)
    for name in ("confusion.png", "classes.png"):
        assert cv2.imread(str(tmp_path / "out" / name)) is not None


def test_the_worst_videos_with_frames_where_there_are_any(page: Page) -> None:
    assert worst_videos(scores(), 2) == [5, 3], "the lowest probability of the right class"
    frames = [source for source in page.sources if source.startswith("data:image/jpeg")]
    assert len(frames) == 2, "three are wrong, one has no frames"
    assert re.search(r"No frames: .*v<5>", page.text)
    assert "(10.0 %) taken for walk (70.0 %)" in page.text


def test_the_curves_of_the_training(tmp_path: Path) -> None:
    figures = [
        {"epoch": epoch, "split": split, "top1": 20.0 * epoch, "loss": 2 / epoch}
        for epoch in (1, 2)
        for split in ("train", "val")
    ]
    for rows, drawn in ((figures, True), (figures[:3], False)):
        text = report.write_report(
            scores(), tmp_path, open_frames=lambda: read_frames, top=(1,), figures=rows
        ).read_text()
        assert ("<h2>The training</h2>" in text) == drawn
    accuracy, loss = report_figures.curves_figure(figures, scores()).axes
    assert [np.asarray(line.get_ydata())[0] for line in accuracy.lines] == [20.0, 20.0, 25.0], (
        "the last is chance of four classes"
    )
    assert np.asarray(loss.lines[-1].get_ydata())[0] == pytest.approx(1.386, abs=1e-3)
    (band,) = accuracy.collections
    assert np.asarray(band.get_paths()[0].vertices)[:, 1].min() == pytest.approx(scores().interval(1)[0]), (
        "20 % of 6 videos"
    )


def test_a_storage_that_does_not_open(tmp_path: Path) -> None:
    def open_frames() -> report.ReadFrames:
        raise DataError("the folder <frames> does not exist")

    page = Page(report.write_report(scores(), tmp_path, open_frames=open_frames, top=(1,)).read_text())
    assert page.text.count("No frames: the folder <frames> does not exist") == 1
    assert not [source for source in page.sources if source.startswith("data:image/jpeg")]


def test_frames_side_by_side_and_dark_ones_brighter() -> None:
    frames = np.broadcast_to(np.arange(100, 160, 10, dtype=np.uint8)[:, None, None, None], (6, 20, 30, 3))
    row = cv2.imdecode(np.frombuffer(report_figures.strip(frames), np.uint8), cv2.IMREAD_COLOR)
    assert row is not None
    assert row.shape == (report_figures.STRIP_HEIGHT, 6 * 144, 3)
    np.testing.assert_allclose(row[48, 72::144].mean(-1), np.arange(100, 160, 10), atol=2)
    dark = cv2.imdecode(np.frombuffer(report_figures.strip(frames // 10), np.uint8), cv2.IMREAD_COLOR)
    assert dark is not None
    np.testing.assert_allclose(dark[48, 72], 255 * np.sqrt(10 / 255), atol=3)


def test_the_confusion_matrix_as_text() -> None:
    assert confusion(scores()).tolist() == [[2, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
    lines = confusion_table(scores()).splitlines()
    assert lines[0].split()[0] == "true"
    assert lines[1].split() == ["jump", "2", ".", ".", ".", "100%"]
    assert lines[4].split() == ["walk", ".", ".", ".", ".", "-"]
    assert len({len(line) for line in lines}) == 1, "columns stand under their names"


def test_many_classes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    many = scores(
        classes=[f"class {k}" for k in range(50)],
        probabilities=random.dirichlet(np.ones(50), (6, 1)).astype(np.float32),
        clips=1,
    )
    assert confusion_table(many).splitlines()[0] == "the most frequent confusions"
    page = write(tmp_path, many)
    assert page.rows[0] == ["", "middle viewmiddle clip, centre crop"], "a single view is not called all"
    assert ["class", "taken for", "videos"] in page.rows
