"""What the comparison with the recipe is trained and tested on: the videos in parts, each tested on in turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import make_folder
from datasets.annotations import read_list
from datasets.preparation.batch_extraction import ExtractionOptions, extract_dataset
from datasets.preparation.labels import sources_from_labels
from datasets.preparation.sources import frame_folders


@dataclass(frozen=True)
class Parts:
    """How the videos are parted.

    Args:
        column: of the labels file.
        values: of each part, such as "1", or "0,15,16" for three values.

    Raises:
        UserError: there is one part, or two have a value in common.
    """

    column: str
    values: Sequence[str]

    def __post_init__(self) -> None:
        single = [value for values in self.values for value in values.split(",")]
        if len(set(single)) < len(single) or len(self.values) < 2:
            raise UserError("--parts must be two or more, and different from each other")

    @property
    def have_groups(self) -> bool:
        """Whether a part has several values, such as scenes: the videos of one are then drawn together."""
        return any("," in values for values in self.values)


@dataclass(frozen=True)
class Way:
    """One part to test on, and the others to train on.

    Args:
        name: what it is tested on.
        train: list of videos.
        test: list of videos.
        samples: the videos of the test, in order.
        groups: for each of them what an interval draws together: its value of the column, or itself.
    """

    name: str
    train: Path
    test: Path
    samples: list[str]
    groups: list[str]


def store_ways(videos: Path, labels: Path, parts: Parts, runs: Path) -> list[Way]:
    """Stores the frames of all parts in runs/frames, and writes the lists and runs/classes.txt.

    Raises:
        UserError: there is no labels file.
        DataError: the labels file lacks a column or a value, or a video does not decode.
    """
    if not labels.is_file():
        raise UserError(
            f"{labels} does not exist: the study needs a folder of short videos, and a CSV file with the columns path, "
            f"label, {parts.column}"
        )
    make_folder(runs)

    def store(name: str, values: Sequence[str]) -> Path:
        file = runs / f"{name}.txt"
        extract_dataset(
            ExtractionOptions(
                video_dir=videos,
                out_dir=runs / "frames",
                list_file=file,
                labels=labels,
                where=[f"{parts.column}={','.join(values)}"],
                classes_file=runs / "classes.txt",
                format="PACKED",
            )
        )
        return file

    store("all", parts.values)  # first, so that the classes of all parts are numbered
    groups = _groups(videos, labels, parts)
    classes = count_classes(runs)
    ways = []
    for part in parts.values:
        test = store(part, [part])
        train = store(f"all but {part}", [other for other in parts.values if other != part])
        samples = [video.path for video in read_list(test, num_classes=classes)]
        ways.append(Way(f"tested on {part}", train, test, samples, [groups[sample] for sample in samples]))
    return ways


def count_classes(runs: Path) -> int:
    return len((runs / "classes.txt").read_text(encoding="utf-8").splitlines())


def _groups(videos: Path, labels: Path, parts: Parts) -> dict[str, str]:
    """For each video as a list names it, what is drawn together."""
    sources = sources_from_labels(labels, videos)
    folders = frame_folders(sources)
    return {
        folders[source.path]: source.columns[parts.column] if parts.have_groups else folders[source.path]
        for source in sources
    }
