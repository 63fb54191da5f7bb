"""A split into training and validation videos by recording: all clips of a recording are on the same side."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from common.errors import DataError
from datasets.preparation.sources import Source

# `holiday_03`, `holiday-clip3` and `holiday (3)` are clips of `holiday`, `v_Basketball_g08_c01` is one of `..._g08`.
_CLIP_NUMBER = re.compile(r"([ _.-]+(c|(clip|part|segment|seg|take)[ _.-]?)?\d+| ?\(\d+\))$", re.IGNORECASE)
# Names that data sets and cameras give, and the recording of such a name.
_KNOWN_NAMES = (
    (re.compile(r"(.+)_\d{6}_\d{6}", re.ASCII), "{}"),  # Kinetics: video, start, end
    (re.compile(r"(.+?)[_-]\d+\.\d+[_-]\d+\.\d+", re.ASCII), "{}"),  # the same in decimals
    (re.compile(r"(person\d+)_\w+_d\d(?:_uncomp)?", re.ASCII | re.IGNORECASE), "{}"),  # KTH: person, action, scene
    (re.compile(r"(P\d+)[_-]?S\d+[_-]?C\d+", re.ASCII | re.IGNORECASE), "{}"),  # person, scene, clip
    (re.compile(r"S\d{3}C\d{3}(P\d{3})R\d{3}A\d{3}(?:_\w+)?", re.ASCII | re.IGNORECASE), "{}"),  # NTU RGB+D: person
    (re.compile(r"\w+_(p\d+)_r\d+_v\d+_c\d+", re.ASCII | re.IGNORECASE), "{}"),  # Toyota Smarthome: person
    (re.compile(r"(G[HXL])\d\d(\d{4})", re.ASCII), "{}{}"),  # GoPro: chapter, number of the recording
    (re.compile(r"(?:GOPR|GP\d\d)(\d{4})", re.ASCII), "GOPR{}"),  # GoPro until 2017
)
_MOST_OF_A_CLASS = 0.75  # one recording with a larger share of its videos is not believed
_TRIALS = 100


def recordings(videos: Sequence[Source], group: str = "") -> tuple[dict[str, str], list[str]]:
    """The recording that each video was cut from.

    Args:
        videos: at least one.
        group: a column of the label file; or a regular expression that is searched in the file name without extension,
            whose group, or whole match, is the name of the recording. Empty: the file name without the number of the
            clip at its end, or the part that names the recording (or the person) in names of Kinetics, KTH, NTU RGB+D,
            Smarthome, P01S02C01 and GoPro's chapters. A number is not believed to be a clip's if one recording would
            then have more than three quarters of its class: each of these videos counts as a recording. Copies are of
            the recording of the first.

    Returns:
        The name of the recording by the path of the video, and the classes whose file names do not tell it.

    Raises:
        DataError: the expression is not valid or is not found in a name, or the column of a video is empty.
    """
    if group:
        return _with_copies(videos, _recordings_by_group(videos, group)), []
    guesses = {video.path: _guess(video.path) for video in videos}
    counts = Counter((video.label, guesses[video.path][0]) for video in videos)
    sizes = Counter(video.label for video in videos)
    names, ungrouped = {}, set()
    for video in videos:
        name, is_certain = guesses[video.path]
        if not is_certain and 1 < counts[video.label, name] > _MOST_OF_A_CLASS * sizes[video.label]:
            ungrouped.add(video.label)
            name = video.path
        names[video.path] = name
    return _with_copies(videos, names), sorted(ungrouped)


def _guess(path: str) -> tuple[str, bool]:
    """The recording by the file name, and whether the name has a known form."""
    stem = _file_stem(path)
    for expression, form in _KNOWN_NAMES:
        if match := expression.fullmatch(stem):
            return form.format(*match.groups()), True
    return _CLIP_NUMBER.sub("", stem), False


def _with_copies(videos: Sequence[Source], names: dict[str, str]) -> dict[str, str]:
    """The recordings, where a copy of another video belongs to the recording of that one."""
    merged: dict[str, str] = {}  # a recording and the one that it is part of

    def root(name: str) -> str:
        while name in merged:
            name = merged[name]
        return name

    for video in videos:
        if video.copy_of in names:  # not if that one was left out
            first, other = root(names[video.copy_of]), root(names[video.path])
            if first != other:
                merged[other] = first
    return {path: root(name) for path, name in names.items()}


def choose_validation(
    videos: Sequence[Source], recording_of: dict[str, str], share: float, *, seed: int = 0
) -> set[str]:
    """Chooses recordings for validation, so that each class has about `share` of its videos there.

    The result depends on the arguments alone. Recordings are taken in a random order, each one only if the classes
    then come closer to their share; the best of several orders counts. Each class keeps a video for training, so a
    class of a single recording has no validation video.

    Args:
        videos: of all classes.
        recording_of: the recording of each video, by the path of the video.
        share: of the videos of each class, between 0 and 1.
        seed: of the random orders.

    Returns:
        The names of the recordings.

    Raises:
        DataError: share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise DataError(f"the share of the videos to validate on must be above 0 and below 1, got {share}")
    names, shares = _shares(videos, recording_of)
    single = (shares > 0).sum(0) == 1
    best: tuple[float, list[int]] = (np.inf, [])
    random = np.random.default_rng(seed)
    for _ in range(_TRIALS):
        taken: list[int] = []
        total = np.zeros(shares.shape[1])
        for index in random.permutation(len(names)):
            larger = total + shares[index]
            if _imbalance(larger, share) < _imbalance(total, share) and (larger < 1 - 1e-9).all():
                taken, total = [*taken, int(index)], larger
        # A class without validation video that could have one costs more than any imbalance.
        cost = _imbalance(total, share) + len(videos) * ((total == 0) & ~single).sum()
        best = min(best, (cost, taken))
    return {names[index] for index in best[1]}


def _shares(videos: Sequence[Source], recording_of: dict[str, str]) -> tuple[list[str], np.ndarray]:
    """The recordings, sorted, and the share of the videos of each class that each has: (recordings, classes)."""
    label_index = {label: index for index, label in enumerate(sorted({video.label for video in videos}))}
    names = sorted(set(recording_of.values()))
    name_index = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(label_index)))
    for video in videos:
        counts[name_index[recording_of[video.path]], label_index[video.label]] += 1
    return names, counts / counts.sum(0)


def _imbalance(shares: np.ndarray, wanted: float) -> float:
    """How far the classes (classes,) are from the wanted share; no video at all is worse than any other share."""
    return float(np.abs(shares - wanted).sum() + (shares == 0).sum())


def _recordings_by_group(videos: Sequence[Source], group: str) -> dict[str, str]:
    """The recordings by a column or a regular expression, see `recordings`."""
    if group in videos[0].columns:
        names = {video.path: video.columns[group].strip() for video in videos}
        what = f"column {group} of its row"
    else:
        names = {video.path: _search_file_name(group, video.path) for video in videos}
        what = f"expression {group!r} in its name"
    if lacking := [path for path, name in names.items() if not name]:
        raise DataError(f"the video {lacking[0]!r} has no recording: the {what} gives nothing")
    return names


def _file_stem(path: str) -> str:
    return os.path.splitext(PurePosixPath(path).name)[0]


def _search_file_name(expression: str, path: str) -> str:
    """The first group, or the match, of an expression in a file name without extension; empty if there is none."""
    try:
        match = re.search(expression, _file_stem(path))
    except re.error as error:
        raise DataError(f"{expression!r} is no regular expression: {error}") from None
    if not match:
        return ""
    return next((text for text in match.groups() if text), "") if match.groups() else match[0]
