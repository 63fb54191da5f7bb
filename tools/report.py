"""Turn scores into a page: accuracy of one view and of all, every class, what is taken for what, the worst videos.

    python -m tools.report output/NAME/scores.npz [--out FOLDER] [--worst 12]

FOLDER, by default that of the scores, gets report.html, which needs no other file, and its two pictures confusion.png
and classes.png. The confusion matrix is printed too. Frames of the worst videos come from where the scores say they
are; where they are not any more, the page says so. Exit code: 0, or 2 if something is wrong.
"""

import argparse
import base64
import io
import math
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from common.errors import DataError, UserError
from common.files import write_text
from datasets.readers import Reader, open_reader
from engine.metrics import TOP
from engine.scores import Scores, load_scores

STRIP_FRAMES, STRIP_HEIGHT = 6, 96  # of a worst video; pixels
DARK = 40  # grey levels that a video must have on average for its frames to be shown as they are
MOST_NAMES = 30  # classes that a picture or a printed table has room to name
ONE, ALL = "#d98a3d", "#2f6690"  # colours of one view and of all


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", type=Path, metavar="scores.npz", help="of train_val_3d.py --test")
    parser.add_argument("--out", type=Path, help="folder (default: that of the scores)")
    parser.add_argument("--worst", type=int, default=12, help="videos that are shown (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        if args.worst < 0:
            raise UserError(f"--worst must be at least 0, got {args.worst}")
        scores = load_scores(args.scores)
        print(confusion_table(scores))
        print(write_report(scores, args.out or args.scores.parent, worst=args.worst))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def write_report(scores: Scores, folder: Path, *, worst: int = 12) -> Path:
    """Writes report.html, confusion.png and classes.png; returns the page's path.

    Raises:
        UserError: the folder cannot be written.
    """
    pictures = {"confusion.png": _png(confusion_figure(scores)), "classes.png": _png(classes_figure(scores))}
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (folder / name).write_bytes(picture)
        write_text(page, _page(scores, pictures, worst))
    except OSError as error:
        raise UserError(f"the report {page} cannot be written: {error.strerror}") from None
    return page


# ---- Figures --------------------------------------------------------------------------------------------------------


def confusion(scores: Scores) -> np.ndarray:
    """How many videos of each class (rows) were taken for each class (columns), by the mean of all views."""
    matrix = np.zeros((len(scores.classes),) * 2, np.int64)
    np.add.at(matrix, (scores.labels, scores.of_all_views().argmax(1)), 1)
    return matrix


def interval(hits: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `of` trials, in percent: what so few videos leave open."""
    z = 1.96
    centre, spread = hits + z * z / 2, z * math.sqrt(hits * (of - hits) / of + z * z / 4)
    return max(0.0, 100 * (centre - spread) / (of + z * z)), min(100.0, 100 * (centre + spread) / (of + z * z))


def worst_videos(scores: Scores, count: int) -> list[int]:
    """The wrongly classified videos that give their right class the lowest probability, the worst first."""
    means = scores.of_all_views()
    right = means[np.arange(len(means)), scores.labels]
    wrong = np.flatnonzero(scores.ranks(means) > 0)
    return wrong[np.argsort(right[wrong], kind="stable")][:count].tolist()


def confusion_table(scores: Scores) -> str:
    """The confusion matrix as text, or the most frequent confusions where there are many classes."""
    matrix, names = confusion(scores), [_short(name, 12) for name in scores.classes]
    if len(names) > MOST_NAMES // 2:
        lines = [f"{count:>5}  {true}  taken for  {taken}" for count, true, taken in confusions(scores)]
        return "\n".join(["the most frequent confusions", *lines])
    first, widths = max(map(len, [*names, "true"])), [max(len(name), 4) for name in names]
    header = [f"{name:>{width}}" for name, width in zip(names, widths, strict=True)]
    lines = ["  ".join([f"{'true':<{first}}", *header, "right"])]
    for label, (name, row) in enumerate(zip(names, matrix, strict=True)):
        cells = [f"{count or '.':>{width}}" for count, width in zip(row, widths, strict=True)]
        share = f"{100 * row[label] / row.sum():4.0f}%" if row.sum() else "    -"
        lines.append("  ".join([f"{name:<{first}}", *cells, share]))
    return "\n".join(lines)


def confusions(scores: Scores, most: int = 15) -> list[tuple[int, str, str]]:
    """(videos, class, class that they were taken for), the most frequent first."""
    matrix = confusion(scores)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    found = [(int(matrix[i, j]), scores.classes[i], scores.classes[j]) for i, j in _pairs(order, len(matrix))]
    return [one for one in found if one[0]]


def _pairs(flat: np.ndarray, classes: int) -> list[tuple[int, int]]:
    return [divmod(index, classes) for index in flat.tolist()]


# ---- Pictures -------------------------------------------------------------------------------------------------------


def confusion_figure(scores: Scores) -> Figure:
    """Shares of each class's videos, true classes down, predicted ones across; counts where there is room for them."""
    matrix = confusion(scores)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    classes = len(matrix)
    side = min(max(0.55 * classes, 3.2), 9.0)
    figure = Figure(figsize=(side + 1.6, side + 1.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true")
    if classes <= MOST_NAMES:
        names = [_plain(_short(name, 20)) for name in scores.classes]
        axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), names)
    if classes <= MOST_NAMES // 2:
        for i, j in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color=colour)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30)
    bar.set_label("share of the class's videos")
    bar.outline.set_visible(False)
    return figure


def classes_figure(scores: Scores) -> Figure:
    """Top-1 of each class by one view and by all, the worst class first; of many classes the worst."""
    rows = class_rows(scores)[:MOST_NAMES]
    figure = Figure(figsize=(6.5, 0.9 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    ys = range(len(rows))
    one, every = [row[2] for row in rows], [row[3] for row in rows]
    if scores.views > 1:
        axes.hlines(ys, one, every, color="#cccccc", linewidth=2, zorder=1)
        axes.scatter(one, ys, color=ONE, s=30, label="1 view", zorder=2)
    axes.scatter(every, ys, color=ALL, s=30, label=f"{_views(scores.views)}", zorder=3)
    axes.set_yticks(ys, [_plain(f"{_short(row[0], 28)} ({row[1]})") for row in rows])
    axes.set(xlim=(-3, 103), ylim=(len(rows) - 0.5, -0.5), xlabel="top-1 of the class, % (number of videos)")
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()


def strip(reader: Reader, video: str) -> bytes:
    """Frames spread over a whole video, side by side, as JPEG; of a dark video brighter than they are.

    Raises:
        DataError: they cannot be read.
    """
    count = reader.count(video)
    if not count:
        raise DataError(f"the video {video} has no frames")
    positions = [(2 * i + 1) * count // (2 * STRIP_FRAMES) for i in range(STRIP_FRAMES)]
    frames = reader.read(video, positions)
    if frames.mean() < DARK:
        frames = (255 * (frames / 255) ** 0.5).astype(np.uint8)
    size = max(1, round(frames.shape[2] * STRIP_HEIGHT / frames.shape[1])), STRIP_HEIGHT
    row = np.hstack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    return cv2.imencode(".jpg", cv2.cvtColor(row, cv2.COLOR_RGB2BGR))[1].tobytes()


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read a formula


# ---- The page -------------------------------------------------------------------------------------------------------

_STYLE = """
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


def class_rows(scores: Scores) -> list[tuple[str, int, float, float, str]]:
    """(class, videos, top-1 of one view, of all views, what it is most often taken for) of each class that has videos.

    The worst comes first, by all views.
    """
    one, every = (scores.ranks(values) == 0 for values in (scores.of_one_view(), scores.of_all_views()))
    matrix = confusion(scores)
    np.fill_diagonal(matrix, 0)
    rows = []
    for label, name in enumerate(scores.classes):
        mine = scores.labels == label
        if mine.any():
            wrong = int(matrix[label].argmax())
            taken = f"{scores.classes[wrong]} ({matrix[label, wrong]})" if matrix[label, wrong] else ""
            rows.append((name, int(mine.sum()), 100 * one[mine].mean(), 100 * every[mine].mean(), taken))
    return sorted(rows, key=lambda row: row[3])


def _page(scores: Scores, pictures: dict[str, bytes], worst: int) -> str:
    parts = [
        "<h1>What the network gets right, and what not</h1>",
        f"<p>{len(scores.videos)} videos of {escape(scores.list_file)}, {len(scores.classes)} classes</p>",
        _accuracy(scores),
        f"<h2>What is taken for what</h2>{_image('confusion matrix', 'png', pictures['confusion.png'])}",
        _confusions(scores) if len(scores.classes) > MOST_NAMES // 2 else "",
        f"<h2>Classes, the worst first</h2>{_image('top-1 of each class', 'png', pictures['classes.png'])}",
        _classes(scores),
        _worst(scores, worst),
    ]
    head = f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>Scores</title><style>{_STYLE}</style>'
    return "\n".join([head, *parts, "</html>\n"])


def _accuracy(scores: Scores) -> str:
    """One column for one view, one for all, so that nobody compares one with the other."""
    columns = [("1 view<br><small>middle clip, centre crop</small>", scores.of_one_view())]
    if scores.views > 1:
        what = f"{scores.clips} clips x {scores.crops} crops"
        columns.append((f"{_views(scores.views)}<br><small>{what}</small>", scores.of_all_views()))
    rows = []
    for k in (k for k in TOP if k == 1 or k < len(scores.classes)):
        cells = []
        for _, probabilities in columns:
            hits = int((scores.ranks(probabilities) < k).sum())
            low, high = interval(hits, len(scores.videos))
            cells.append(
                f'<td class="big">{100 * hits / len(scores.videos):.2f} <small>({low:.1f} to {high:.1f})</small></td>'
            )
        rows.append(f"<tr><td>top-{k}, %</td>{''.join(cells)}</tr>")
    header = "".join(f"<th>{name}</th>" for name, _ in columns)
    note = "In brackets: the 95 % interval that so many videos allow. Compare figures of the same views only."
    return f"<table><tr><th></th>{header}</tr>{''.join(rows)}</table><p>{note}</p>"


def _confusions(scores: Scores) -> str:
    rows = [
        f'<tr><td>{escape(true)}</td><td class="text">{escape(taken)}</td><td>{count}</td></tr>'
        for count, true, taken in confusions(scores)
    ]
    return f'<table><tr><th>class</th><th class="text">taken for</th><th>videos</th></tr>{"".join(rows)}</table>'


def _classes(scores: Scores) -> str:
    several = scores.views > 1
    header = "<th>1 view, %</th>" if several else ""
    lines = [
        f"<tr><th>class</th><th>videos</th>{header}<th>{_views(scores.views)}, %</th>"
        '<th class="text">most often taken for</th></tr>'
    ]
    for name, videos, one, every, taken in class_rows(scores):
        cell = f"<td>{one:.1f}</td>" if several else ""
        lines.append(
            f"<tr><td>{escape(name)}</td><td>{videos}</td>{cell}<td>{every:.1f}</td>"
            f'<td class="text">{escape(taken)}</td></tr>'
        )
    return f"<table>{''.join(lines)}</table>"


def _worst(scores: Scores, count: int) -> str:
    worst = worst_videos(scores, count)
    if not worst:
        return ""
    parts = [
        "<h2>The worst videos</h2><p>Wrong, and with the lowest probability of their class, over all views. "
        "Dark videos are shown brighter than they are.</p>"
    ]
    means = scores.of_all_views()
    reader: Reader | None = None
    try:
        reader = open_reader(
            scores.format,  # type: ignore[arg-type]
            scores.root_path,
            frame_template=scores.frame_template,
            first_frame=scores.first_frame,
        )
    except (DataError, ValueError) as error:
        parts.append(f"<p>No frames: {escape(str(error))}</p>")
    for video in worst:
        label, taken = int(scores.labels[video]), int(means[video].argmax())
        text = (
            f"<b>{escape(scores.classes[label])}</b> ({100 * means[video, label]:.1f} %) taken for "
            f"<b>{escape(scores.classes[taken])}</b> ({100 * means[video, taken]:.1f} %)"
            f'<br><span class="note">{escape(scores.videos[video])}</span>'
        )
        shown = ""
        if reader is not None:
            try:
                shown = _image("frames of the video", "jpeg", strip(reader, scores.videos[video]))
            except DataError as error:
                shown = f"<p>No frames: {escape(str(error))}</p>"
        parts.append(f"<figure>{shown}<figcaption>{text}</figcaption></figure>")
    return "\n".join(parts)


def _image(alt: str, kind: str, data: bytes) -> str:
    return f'<img alt="{alt}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _views(views: int) -> str:
    return "1 view" if views == 1 else f"all {views} views"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


if __name__ == "__main__":
    sys.exit(main())
