"""The pictures of a report: the confusion matrix, the accuracy of each class, frames of a video."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from visualization.plain_text import drawable, plain_text
from visualization.score_summary import MOST_NAMES, Scores, all_views, class_rows, confusion

STRIP_HEIGHT = 96  # pixels
DARK = 40  # mean grey level below which the frames of a video are drawn brighter
ONE, ALL = "#d98a3d", "#2f6690"  # colours of the middle view and of all views


@plain_text()
def confusion_figure(scores: Scores) -> Figure:
    """The share of each class's videos by predicted class, true classes down; with numbers where there is room."""
    matrix = confusion(scores)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    classes = len(matrix)
    side = min(max(0.55 * classes, 3.2), 9.0)
    figure = Figure(figsize=(side + 1.6, side + 1.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true")
    if classes <= MOST_NAMES:
        names = [drawable(name, 20) for name in scores.classes]
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


@plain_text()
def classes_figure(scores: Scores) -> Figure:
    """Top-1 of each class by the middle view and by all, the lowest first; of many classes the lowest ones."""
    rows = class_rows(scores)[:MOST_NAMES]
    figure = Figure(figsize=(6.5, 0.9 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    ys = range(len(rows))
    one, every = [row.middle_view for row in rows], [row.all_views for row in rows]
    if scores.views > 1:
        axes.hlines(ys, one, every, color="#cccccc", linewidth=2, zorder=1)
        axes.scatter(one, ys, color=ONE, s=30, label="middle view", zorder=2)
    axes.scatter(every, ys, color=ALL, s=30, label=all_views(scores.views), zorder=3)
    axes.set_yticks(ys, [f"{drawable(row.name, 28)} ({row.videos})" for row in rows])
    axes.set(xlim=(-3, 103), ylim=(len(rows) - 0.5, -0.5), xlabel="top-1 of the class, % (number of videos)")
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def curves_figure(figures: Sequence[Mapping[str, Any]], scores: Scores) -> Figure:
    """Top-1 and loss of training and validation by epoch, with chance; of top-1 the interval of the validation.

    Args:
        figures: rows with epoch, split, top1 and loss.
        scores: of the same validation videos.
    """
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    classes, videos = len(scores.classes), len(scores.videos)
    for split, name, colour in (("train", "training", ONE), ("val", "validation", ALL)):
        rows = [row for row in figures if row["split"] == split]
        epochs = [row["epoch"] for row in rows]
        style = {"color": colour, "label": name, "marker": "o", "markersize": 3}
        accuracy.plot(epochs, [row["top1"] for row in rows], **style)
        loss.plot(epochs, [row["loss"] for row in rows], **style)
        if split == "val":
            limits = [scores.interval(round(row["top1"] * videos / 100)) for row in rows]
            accuracy.fill_between(epochs, *zip(*limits, strict=True), color=colour, alpha=0.15, linewidth=0)
    for axes, title, chance in ((accuracy, "top-1, %", 100 / classes), (loss, "loss", math.log(classes))):
        axes.axhline(chance, color="#888888", linestyle=":", label="chance")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color="#e5e5e5")
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
    accuracy.set_ylim(0, 100)
    loss.set_ylim(bottom=0)
    loss.legend(frameon=False)
    return figure


@plain_text()
def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()


def strip(frames: np.ndarray) -> bytes:
    """Frames uint8 (T, H, W, 3), RGB, side by side as JPEG. Dark frames are drawn brighter."""
    if frames.mean() < DARK:
        frames = (255 * (frames / 255) ** 0.5).astype(np.uint8)
    size = max(1, round(frames.shape[2] * STRIP_HEIGHT / frames.shape[1])), STRIP_HEIGHT
    row = np.hstack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    return cv2.imencode(".jpg", cv2.cvtColor(row, cv2.COLOR_RGB2BGR))[1].tobytes()
