"""What a report of scores counts: the confusion matrix, the accuracy of each class, intervals, the worst videos."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from visualization.plain_text import drawable

MOST_NAMES = 30  # classes that a picture or a printed table has room to name


class Scores(Protocol):
    """Probabilities of V videos in several views (clip x crop), as `engine.scores.Scores` has them."""

    @property
    def videos(self) -> Sequence[str]:
        """Paths, V of them."""

    @property
    def labels(self) -> np.ndarray:
        """(V,) int64."""

    @property
    def classes(self) -> Sequence[str]:
        """A name for each class."""

    @property
    def clips(self) -> int: ...

    @property
    def crops(self) -> int: ...

    @property
    def views(self) -> int:
        """clips * crops."""

    @property
    def list_file(self) -> str:
        """The list of the videos."""

    def of_middle_view(self) -> np.ndarray:
        """(V, classes): the probabilities of the middle view."""

    def of_all_views(self) -> np.ndarray:
        """(V, classes): the mean of all views."""

    def interval(self, hits: int) -> tuple[float, float]:
        """The 95 % interval of the share hits / V in percent."""

    def ranks(self, probabilities: np.ndarray) -> np.ndarray:
        """(V,): the rank of the right class in (V, classes), 0 for a top-1 hit."""


class ClassRow(NamedTuple):
    """Accuracy of a class that has videos.

    name: of the class.
    videos: how many it has.
    middle_view, all_views: top-1 in percent.
    confused_with: the class that most of its wrong videos are classified as, with their number; empty if none is wrong.
    """

    name: str
    videos: int
    middle_view: float
    all_views: float
    confused_with: str


def confusion(scores: Scores) -> np.ndarray:
    """The number of videos of each class (rows) that are classified as each class (columns), by the mean of all views.

    Returns:
        (classes, classes) int64.
    """
    matrix = np.zeros((len(scores.classes),) * 2, np.int64)
    np.add.at(matrix, (scores.labels, scores.of_all_views().argmax(1)), 1)
    return matrix


def confusions(scores: Scores, most: int = 15) -> list[tuple[int, str, str]]:
    """(videos, class, class that they are classified as), the most frequent first, `most` of them at most."""
    matrix = confusion(scores)
    np.fill_diagonal(matrix, 0)
    order = np.argsort(-matrix, axis=None, kind="stable")[:most]
    pairs = [divmod(index, len(matrix)) for index in order.tolist()]
    return [(int(matrix[i, j]), scores.classes[i], scores.classes[j]) for i, j in pairs if matrix[i, j]]


def class_rows(scores: Scores) -> list[ClassRow]:
    """The accuracy of each class that has videos, the lowest by all views first."""
    one, every = (scores.ranks(values) == 0 for values in (scores.of_middle_view(), scores.of_all_views()))
    matrix = confusion(scores)
    np.fill_diagonal(matrix, 0)
    rows = []
    for label, name in enumerate(scores.classes):
        of_class = scores.labels == label
        if of_class.any():
            wrong = int(matrix[label].argmax())
            confused_with = f"{scores.classes[wrong]} ({matrix[label, wrong]})" if matrix[label, wrong] else ""
            accuracies = 100 * one[of_class].mean(), 100 * every[of_class].mean()
            rows.append(ClassRow(name, int(of_class.sum()), *accuracies, confused_with))
    return sorted(rows, key=lambda row: row.all_views)


def worst_videos(scores: Scores, count: int) -> list[int]:
    """The wrongly classified videos with the lowest probability of their class, the lowest first."""
    means = scores.of_all_views()
    right = means[np.arange(len(means)), scores.labels]
    wrong = np.flatnonzero(scores.ranks(means) > 0)
    return wrong[np.argsort(right[wrong], kind="stable")][:count].tolist()


def confusion_table(scores: Scores) -> str:
    """The confusion matrix as text, or the most frequent confusions where there are many classes."""
    matrix, names = confusion(scores), [drawable(name, 12) for name in scores.classes]
    if len(names) > MOST_NAMES // 2:
        lines = [
            f"{count:>5}  {drawable(true)}  taken for  {drawable(guess)}" for count, true, guess in confusions(scores)
        ]
        return "\n".join(["the most frequent confusions", *lines])
    first, widths = max(map(len, [*names, "true"])), [max(len(name), 4) for name in names]
    header = [f"{name:>{width}}" for name, width in zip(names, widths, strict=True)]
    lines = ["  ".join([f"{'true':<{first}}", *header, "right"])]
    for label, (name, row) in enumerate(zip(names, matrix, strict=True)):
        cells = [f"{count or '.':>{width}}" for count, width in zip(row, widths, strict=True)]
        share = f"{100 * row[label] / row.sum():4.0f}%" if row.sum() else "    -"
        lines.append("  ".join([f"{name:<{first}}", *cells, share]))
    return "\n".join(lines)


def all_views(views: int) -> str:
    """How the mean of all views is called."""
    return "1 view" if views == 1 else f"all {views} views"
