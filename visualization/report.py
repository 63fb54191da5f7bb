"""A report of scores as a page: accuracy of the middle view and of all, every class, confusions, the worst videos."""

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError, UserError
from common.files import write_text
from visualization.report_figures import classes_figure, confusion_figure, curves_figure, png, strip
from visualization.score_summary import MOST_NAMES, Scores, all_views, class_rows, confusions, worst_videos

#: Reads some frames of a video by its path in the list: uint8 (T, H, W, 3), RGB. Raises DataError.
ReadFrames = Callable[[str], np.ndarray]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2.5rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2.5rem }
p, .note { color: #666; overflow-wrap: anywhere }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .9rem; text-align: right; border-bottom: 1px solid #e5e5e5 }
th { font-weight: 600 } td.text, th.text { text-align: left }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
td.big { font-size: 1.5rem; font-weight: 600 } td.big small { font-size: .8rem; font-weight: 400; color: #666 }
img { max-width: 100%; display: block; margin-bottom: .8rem }
figure { margin: 1.4rem 0 } figcaption b { font-weight: 600 }
"""


def write_report(
    scores: Scores,
    folder: Path,
    *,
    open_frames: Callable[[], ReadFrames],
    top: Sequence[int],
    worst: int = 12,
    figures: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes report.html, which needs no other file, and its pictures confusion.png and classes.png.

    Args:
        scores: of a validation.
        folder: for the three files.
        open_frames: opens the storage of the frames; the page says so where that raises DataError or ValueError.
        top: values of k for the top-k accuracies.
        worst: number of wrongly classified videos to show.
        figures: of the training, as in metrics.jsonl; its curves are drawn if there are two validations.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder cannot be written.
    """
    pictures = {"confusion.png": png(confusion_figure(scores)), "classes.png": png(classes_figure(scores))}
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (folder / name).write_bytes(picture)
        curves = _curves(scores, figures)
        text = _page(scores, pictures, top, curves, _worst(scores, worst, open_frames))
        write_text(page, text.encode(errors="replace").decode())  # half a surrogate pair has no UTF-8
    except OSError as error:
        raise UserError(f"the report {page} cannot be written: {error.strerror}") from None
    return page


def _page(scores: Scores, pictures: dict[str, bytes], top: Sequence[int], curves: str, worst: str) -> str:
    parts = [
        "<h1>What the network gets right, and what not</h1>",
        f"<p>{len(scores.videos)} videos of {escape(scores.list_file)}, {len(scores.classes)} classes</p>",
        _accuracy(scores, top),
        curves,
        f"<h2>What is taken for what</h2>{_image('confusion matrix', 'png', pictures['confusion.png'])}",
        _confusions(scores) if len(scores.classes) > MOST_NAMES // 2 else "",
        f"<h2>Classes, the worst first</h2>{_image('top-1 of each class', 'png', pictures['classes.png'])}",
        _classes(scores),
        worst,
    ]
    head = f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>Scores</title><style>{STYLE}</style>'
    return "\n".join([head, *parts, "</html>\n"])


def _curves(scores: Scores, figures: Sequence[Mapping[str, Any]]) -> str:
    if sum(row["split"] == "val" for row in figures) < 2:
        return ""
    picture = _image("accuracy and loss by epoch", "png", png(curves_figure(figures, scores)))
    note = (
        "The band is the 95 % interval of the validation. Training figures are of augmented clips, with dropout. "
        "The loss is the mean over the heads."
    )
    return f"<h2>The training</h2>{picture}<p>{note}</p>"


def _accuracy(scores: Scores, top: Sequence[int]) -> str:
    """A table with the middle view and all views in columns of their own: they must not be compared with each other."""
    columns = [("middle view<br><small>middle clip, centre crop</small>", scores.of_middle_view())]
    if scores.views > 1:
        what = f"{scores.clips} clips x {scores.crops} crops"
        columns.append((f"{all_views(scores.views)}<br><small>{what}</small>", scores.of_all_views()))
    rows = []
    for k in (k for k in top if k == 1 or k < len(scores.classes)):
        cells = []
        for _, probabilities in columns:
            hits = int((scores.ranks(probabilities) < k).sum())
            low, high = scores.interval(hits)
            cells.append(
                f'<td class="big">{100 * hits / len(scores.videos):.2f} <small>({low:.1f} to {high:.1f})</small></td>'
            )
        rows.append(f"<tr><td>top-{k}, %</td>{''.join(cells)}</tr>")
    header = "".join(f"<th>{name}</th>" for name, _ in columns)
    note = "In brackets: the 95 % interval that so many videos allow. Compare figures of the same views only."
    return f"<table><tr><th></th>{header}</tr>{''.join(rows)}</table><p>{note}</p>"


def _confusions(scores: Scores) -> str:
    rows = [
        f'<tr><td>{escape(true)}</td><td class="text">{escape(predicted)}</td><td>{count}</td></tr>'
        for count, true, predicted in confusions(scores)
    ]
    return f'<table><tr><th>class</th><th class="text">taken for</th><th>videos</th></tr>{"".join(rows)}</table>'


def _classes(scores: Scores) -> str:
    several = scores.views > 1
    header = "<th>middle view, %</th>" if several else ""
    lines = [
        f"<tr><th>class</th><th>videos</th>{header}<th>{all_views(scores.views)}, %</th>"
        '<th class="text">most often taken for</th></tr>'
    ]
    for row in class_rows(scores):
        cell = f"<td>{row.middle_view:.1f}</td>" if several else ""
        lines.append(
            f"<tr><td>{escape(row.name)}</td><td>{row.videos}</td>{cell}<td>{row.all_views:.1f}</td>"
            f'<td class="text">{escape(row.confused_with)}</td></tr>'
        )
    return f"<table>{''.join(lines)}</table>"


def _worst(scores: Scores, count: int, open_frames: Callable[[], ReadFrames]) -> str:
    """The worst videos, each with some frames."""
    worst = worst_videos(scores, count)
    if not worst:
        return ""
    parts = [
        "<h2>The worst videos</h2><p>Wrong, and with the lowest probability of their class, over all views. "
        "Dark videos are shown brighter than they are.</p>"
    ]
    read_frames: ReadFrames | None = None
    try:
        read_frames = open_frames()
    except (DataError, ValueError) as error:
        parts.append(f"<p>No frames: {escape(str(error))}</p>")
    means = scores.of_all_views()
    parts += [_video(scores, means[video], video, read_frames) for video in worst]
    return "\n".join(parts)


def _video(scores: Scores, probabilities: np.ndarray, video: int, read_frames: ReadFrames | None) -> str:
    """A wrongly classified video with its frames, if they can be read.

    Args:
        probabilities: (classes,) of the video.
        video: its number.
    """
    label, predicted = int(scores.labels[video]), int(probabilities.argmax())
    text = (
        f"<b>{escape(scores.classes[label])}</b> ({100 * probabilities[label]:.1f} %) taken for "
        f"<b>{escape(scores.classes[predicted])}</b> ({100 * probabilities[predicted]:.1f} %)"
        f'<br><span class="note">{escape(scores.videos[video])}</span>'
    )
    picture = ""
    if read_frames is not None:
        try:
            picture = _image("frames of the video", "jpeg", strip(read_frames(scores.videos[video])))
        except DataError as error:
            picture = f"<p>No frames: {escape(str(error))}</p>"
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def _image(alt: str, kind: str, data: bytes) -> str:
    return f'<img alt="{alt}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
