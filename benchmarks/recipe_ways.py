"""What the comparison with the recipe is trained and tested on: the videos in parts, each tested on in turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import make_folder
from datasets.annotations import read_classes, read_list
from datasets.preparation.batch_extraction import ExtractionOptions, extract_dataset
from datasets.preparation.labels import sources_from_labels
from datasets.preparation.sources import frame_folders


@dataclass(frozen=True)
class Parts:
    """How the videos are parted.

    Args:
        column: of the labels file.
        values: of each part, such as "1", or "0,15,16" for three values. Videos with other values are not used.
        group: column whose values are drawn together by an interval, such as a scene; None: videos are drawn one by
            one.

    Raises:
        UserError: there is one part, or two have a value in common.
    """

    column: str
    values: Sequence[str]
    group: str | None = None

    def __post_init__(self) -> None:
        single = [value for values in self.values for value in values.split(",")]
        if len(set(single)) < len(single) or len(self.values) < 2:
            raise UserError("--parts must be two or more, and different from each other")


@dataclass(frozen=True)
class Way:
    """One part to test on, and the others to train on.

    Args:
        number: of the part, from 1.
        name: what it is tested on.
        train: list of videos.
        test: list of videos.
        samples: the videos of the test, in order.
        groups: for each of them what an interval draws together: its value of a column, or itself.
    """

    number: int
    name: str
    train: Path
    test: Path
    samples: list[str]
    groups: list[str]


def store_ways(videos: Path, labels: Path, parts: Parts, runs: Path) -> list[Way]:
    """Stores the frames of all parts in runs/frames, and writes the lists and runs/classes.txt.

    Raises:
        UserError: there is no labels file, it lacks the column of the groups, or a video cannot be read.
        DataError: the labels file lacks another column or a value.
    """
    if not labels.is_file():
        raise UserError(
            f"{labels} does not exist: the study needs a folder of short videos, and a CSV file with the columns path, "
            f"label, {', '.join(dict.fromkeys([parts.column, *([parts.group] if parts.group else [])]))}"
        )
    groups = _groups(videos, labels, parts)
    make_folder(runs)

    def store(name: str, values: Sequence[str]) -> Path:
        file = runs / f"{name}.txt"
        options = ExtractionOptions(
            video_dir=videos,
            out_dir=runs / "frames",
            list_file=file,
            labels=labels,
            where=[f"{parts.column}={','.join(values)}"],
            classes_file=runs / "classes.txt",
            report=runs / "problems.tsv",
            format="PACKED",
        )
        if lost := (summary := extract_dataset(options)).wanted - summary.usable:
            raise UserError(f"{lost} of {summary.wanted} videos cannot be read: {options.report}")
        return file

    store("all", parts.values)  # first, so that the classes of all parts are numbered
    classes = count_classes(runs)
    ways = []
    for number, part in enumerate(parts.values, start=1):
        test = store(f"part_{number}.test", [part])
        train = store(f"part_{number}.train", [other for other in parts.values if other != part])
        samples = [video.path for video in read_list(test, num_classes=classes)]
        ways.append(Way(number, f"tested on {part}", train, test, samples, [groups[sample] for sample in samples]))
    return ways


def count_classes(runs: Path) -> int:
    return len(read_classes(runs / "classes.txt"))


def _groups(videos: Path, labels: Path, parts: Parts) -> dict[str, str]:
    """For each video, as a list names it, what is drawn together."""
    sources = sources_from_labels(labels, videos)
    folders = frame_folders(sources)
    if not parts.group:
        return {folder: folder for folder in folders.values()}
    if parts.group not in sources[0].columns:
        raise UserError(f"{labels} has no column {parts.group}; it has {', '.join(sources[0].columns)}")
    return {folders[source.path]: source.columns[parts.group] for source in sources}
