"""Training and validation videos apart by recording: clips cut from one are never on both sides."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from common.errors import DataError
from datasets.preparation.sources import Source

# `holiday_03`, `holiday-clip3` and `holiday (3)` are clips of `holiday`, `v_Basketball_g08_c01` is one of `..._g08`.
_CLIP_NUMBER = re.compile(r"([ _.-]+(c|(clip|part|segment|seg|take)[ _.-]?)?\d+| ?\(\d+\))$", re.IGNORECASE)
_TRIALS = 100


def recordings(videos: Sequence[Source], group: str = "") -> tuple[dict[str, str], list[str]]:
    """The recording that each video was cut from, by the video's path, and the classes whose names do not tell.

    group: a column of the label file; or a regular expression that is searched in the file name without extension,
        whose group, or whole match, names the recording. Empty: the name without the clip's number at its end; but
        where that makes one recording of a whole class, every video of the class counts as one.

    Raises DataError if the expression is none or is not found in a name, or if a video has nothing in the column.
    """
    if group:
        if group in videos[0].columns:
            names = {video.path: video.columns[group].strip() for video in videos}
            what = f"column {group} of its row"
        else:
            names = {video.path: _found(group, video.path) for video in videos}
            what = f"expression {group!r} in its name"
        if lacking := [path for path, name in names.items() if not name]:
            raise DataError(f"the video {lacking[0]!r} has no recording: the {what} gives nothing")
        return names, []
    classes = defaultdict(set)
    names = {video.path: _CLIP_NUMBER.sub("", _stem(video.path)) for video in videos}
    for video in videos:
        classes[video.label].add(names[video.path])
    untold = sorted(label for label, of_class in classes.items() if len(of_class) == 1)
    return {video.path: video.path if video.label in untold else names[video.path] for video in videos}, untold


def choose_validation(
    videos: Sequence[Source], recording_of: dict[str, str], share: float, *, seed: int = 0
) -> set[str]:
    """The recordings to validate on, so that every class has about `share` of its videos there.

    A function of the arguments alone. Of random orders in which recordings are taken while that brings the classes
    nearer to their share, the best counts. Every class keeps a video to train on; a class of a single recording has
    therefore none to validate on.

    Raises DataError unless 0 < share < 1.
    """
    if not 0 < share < 1:
        raise DataError(f"the share of the videos to validate on must be above 0 and below 1, got {share}")
    labels = {label: place for place, label in enumerate(sorted({video.label for video in videos}))}
    names = sorted(set(recording_of.values()))
    places = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(names), len(labels)))
    for video in videos:
        counts[places[recording_of[video.path]], labels[video.label]] += 1
    shares = counts / counts.sum(0)  # of each class's videos in each recording
    single = (counts > 0).sum(0) == 1
    best: tuple[float, list[int]] = (np.inf, [])
    random = np.random.default_rng(seed)
    for _ in range(_TRIALS):
        taken: list[int] = []
        here = np.zeros(len(labels))
        for index in random.permutation(len(names)):
            then = here + shares[index]
            if _cost(then, share) < _cost(here, share) and (then < 1 - 1e-9).all():
                taken, here = [*taken, int(index)], then
        # A class that could be validated and is not costs more than any imbalance.
        cost = _cost(here, share) + len(videos) * ((here == 0) & ~single).sum()
        best = min(best, (cost, taken))
    return {names[index] for index in best[1]}


def _cost(shares: np.ndarray, wanted: float) -> float:
    """How far the classes are from their share; to have nothing is worse than any other."""
    return float(np.abs(shares - wanted).sum() + (shares == 0).sum())


def _stem(path: str) -> str:
    return os.path.splitext(PurePosixPath(path).name)[0]


def _found(expression: str, path: str) -> str:
    try:
        match = re.search(expression, _stem(path))
    except re.error as error:
        raise DataError(f"{expression!r} is no regular expression: {error}") from None
    if not match:
        return ""
    return next((text for text in match.groups() if text), "") if match.groups() else match[0]
