"""Two trained networks on the same videos: whose accuracy is higher, how sure that is, and where they differ."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from engine.metrics import interval
from engine.scores import SCORES, Scores, load_scores
from engine.statistics import Interval, McNemar, bootstrap_difference, bootstrap_mean, mcnemar
from sifa.flat_settings import read_settings
from sifa.tables import Table

_OWN_TO_A_RUN = ("output_dir", "seed")
MOST_VIDEOS = 200  # that a page lists


@dataclass(frozen=True)
class Runs:
    """One side of a comparison: a run, or runs with other seeds.

    Args:
        name: path that the user gave.
        scores: of each run, of the same videos.
        settings: the values of config.yml by `section.key`; empty if there is none.
    """

    name: str
    scores: list[Scores]
    settings: dict[str, Any]


@dataclass(frozen=True)
class ClassChange:
    """Top-1 of a class in percent on both sides, as the mean over runs."""

    name: str
    videos: int
    first: float
    second: float


@dataclass(frozen=True)
class Comparison:
    """What two sides have in common and where they differ. Accuracies are top-1 of the mean of all views.

    Args:
        names: of the sides.
        views: of a video on each side.
        videos: that both have.
        left_out: videos that only one side has.
        first, second: accuracies in percent.
        difference: of the accuracies, second minus first, in percentage points, paired by video.
        mcnemar: of two single runs; None if a side has several.
        classes: those with another accuracy, the largest gain first.
        changed: (video, class, what the first says, what the second says) where only one of two single runs is right.
        settings: (key, first, second) of the settings that differ.
    """

    names: tuple[str, str]
    views: tuple[str, str]
    videos: int
    left_out: int
    first: Interval
    second: Interval
    difference: Interval
    mcnemar: McNemar | None
    classes: list[ClassChange]
    changed: list[tuple[str, str, str, str]]
    settings: list[tuple[str, str, str]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_runs(path: Path) -> Runs:
    """The scores of a run, or of several.

    Args:
        path: scores.npz, the folder of a run with it, or a folder of such folders (of tools.seeds).

    Raises:
        UserError: there are no scores.
    """
    folders = sorted(file.parent for file in path.glob(f"*/{SCORES}")) if not (path / SCORES).is_file() else []
    files = folders if path.is_dir() and folders else [path]
    config = next((f for f in (files[0] / "config.yml", path.parent / "config.yml") if f.is_file()), None)
    return Runs(str(path), [load_scores(file) for file in files], read_settings(config) if config else {})


def compare(first: Runs, second: Runs) -> Comparison:
    """Compares two sides on the videos that both have.

    Raises:
        UserError: they have no video in common, or a video is of different classes.
    """
    common = _common_videos([*first.scores, *second.scores])
    one, other = (np.stack([_hits(scores, common) for scores in side.scores]) for side in (first, second))
    single = len(one) == len(other) == 1
    classes = [first.scores[0].classes[first.scores[0].labels[i]] for i in _places(first.scores[0], common)]
    known = {video for scores in (*first.scores, *second.scores) for video in scores.videos}
    return Comparison(
        names=(first.name, second.name),
        views=(_views(first.scores[0]), _views(second.scores[0])),
        videos=len(common),
        left_out=len(known) - len(common),
        first=_accuracy(one),
        second=_accuracy(other),
        difference=_percent(bootstrap_difference(one, other)),
        mcnemar=mcnemar(one[0] > 0, other[0] > 0) if single else None,
        classes=_class_changes(np.array(classes), one.mean(0), other.mean(0)),
        changed=list(_changed(first.scores[0], second.scores[0], common)) if single else [],
        settings=_differences(first.settings, second.settings),
    )


def _common_videos(runs: Sequence[Scores]) -> list[str]:
    """The videos that all runs have, in the order of the first. Checks that each is of the same class everywhere."""
    classes: dict[str, str] = {}
    for scores in runs:
        if len(set(scores.videos)) < len(scores.videos):
            raise UserError(f"a video is twice in the scores of {scores.list_file}: they cannot be paired by video")
        for video, label in zip(scores.videos, scores.labels, strict=True):
            name = scores.classes[label]
            if classes.setdefault(video, name) != name:
                raise UserError(f"the video {video} is of class {classes[video]} in one run, {name} in another")
    known = [set(scores.videos) for scores in runs]
    common = [video for video in runs[0].videos if all(video in videos for videos in known)]
    if not common:
        raise UserError(f"the runs have no video in common: one has {runs[0].videos[0]}, another {runs[-1].videos[0]}")
    return common


def _places(scores: Scores, videos: Sequence[str]) -> list[int]:
    place = {video: i for i, video in enumerate(scores.videos)}
    return [place[video] for video in videos]


def _hits(scores: Scores, videos: Sequence[str]) -> np.ndarray:
    """(V,) 1.0 where the mean of all views is right."""
    return (scores.ranks(scores.of_all_views()) == 0).astype(float)[_places(scores, videos)]


def _accuracy(hits: np.ndarray) -> Interval:
    """Of (R, V), in percent: Wilson's interval of one run, the bootstrap's over runs and videos of several."""
    if len(hits) > 1:
        return _percent(bootstrap_mean(hits))
    count = int(hits.sum())
    return Interval(100 * count / hits.shape[1], *interval(count, hits.shape[1]))


def _percent(share: Interval) -> Interval:
    return Interval(100 * share.value, 100 * share.low, 100 * share.high)


def _class_changes(names: np.ndarray, one: np.ndarray, other: np.ndarray) -> list[ClassChange]:
    changes = []
    for name in dict.fromkeys(names.tolist()):
        of_class = names == name
        accuracies = (float(100 * hits[of_class].mean()) for hits in (one, other))
        changes.append(ClassChange(name, int(of_class.sum()), *accuracies))
    changes.sort(key=lambda change: change.first - change.second)
    return [change for change in changes if change.first != change.second]


def _changed(one: Scores, other: Scores, videos: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    answers = [scores.of_all_views()[_places(scores, videos)].argmax(1) for scores in (one, other)]
    right = [_hits(scores, videos) for scores in (one, other)]
    for i in np.flatnonzero(right[0] != right[1]).tolist():
        label = one.classes[one.labels[_places(one, [videos[i]])[0]]]
        yield videos[i], label, one.classes[answers[0][i]], other.classes[answers[1][i]]


def _views(scores: Scores) -> str:
    return f"{scores.clips} clips x {scores.crops} crops"


def _differences(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, str, str]]:
    if not first or not second:
        return []
    keys = [key for key in first | second if key not in _OWN_TO_A_RUN]
    return [(k, str(first.get(k)), str(second.get(k))) for k in keys if first.get(k) != second.get(k)]


def comparison_tables(result: Comparison) -> list[Table]:
    """What a comparison found, as tables."""
    sides = [
        [name, views, f"{side.value:.2f}", f"{side.low:.1f} to {side.high:.1f}"]
        for name, views, side in zip(result.names, result.views, (result.first, result.second), strict=True)
    ]
    gap = result.difference
    sides.append(["difference", "", f"{gap.value:+.2f}", f"{gap.low:+.1f} to {gap.high:+.1f}"])
    tables = [
        Table("", ["run", "views", "top-1, %", "95 % interval"], sides, _verdict(result)),
        class_table(result),
        Table("Settings that differ", ["key", "first", "second"], result.settings),
        Table("Videos that one alone has right", ["video", "class", "first", "second"], result.changed[:MOST_VIDEOS]),
    ]
    return [table for table in tables if table.rows]


def class_table(result: Comparison) -> Table:
    """The classes whose accuracy changed, the largest gain first."""
    header = ["class", "videos", "first, %", "second, %", "difference"]
    rows = [
        [c.name, str(c.videos), f"{c.first:.1f}", f"{c.second:.1f}", f"{c.second - c.first:+.1f}"]
        for c in result.classes
    ]
    return Table("Classes that gained and lost", header, rows)


def _verdict(result: Comparison) -> str:
    text = [f"{result.videos} videos, paired."]
    if result.mcnemar:
        found = result.mcnemar
        text.append(
            f"McNemar's exact test: {found.only_first} videos only the first has right, {found.only_second} only the "
            f"second; p = {found.p:.3g}."
        )
    if result.difference.excludes(0):
        text.append("The interval of the difference does not contain 0.")
    else:
        text.append("The interval of the difference contains 0: these videos do not tell which is better.")
    if result.views[0] != result.views[1]:
        text.append("The views differ: figures of the same views only can be compared fairly.")
    if result.left_out:
        text.append(f"{result.left_out} videos are not in all runs and were left out.")
    return " ".join(text)
