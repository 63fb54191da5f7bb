"""The videos of a fine-tuning: their classes, and which recordings are trained on or validated on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from common.cli import cores
from common.errors import DataError, printable
from common.files import digest
from datasets.annotations import Video, read_list
from datasets.preparation.batch_extraction import ExtractionOptions, extract_dataset
from datasets.preparation.class_folders import FolderVideos, check_no_split_folders, find_in_folders
from datasets.preparation.labels import sources_from_labels
from datasets.preparation.sources import Source, frame_folders
from datasets.preparation.splits import choose_validation, recordings
from datasets.readers import Format
from engine.metrics import interval

ENOUGH_TO_VALIDATE = 50  # videos: an accuracy of 50 % is then known within 13 %


class SplitRow(NamedTuple):
    """A row of videos.csv.

    path: of the video, relative to the folder of all videos.
    label: name of its class.
    recording: that it was cut from; empty for a skipped video.
    split: train, val or skipped.
    """

    path: str
    label: str
    recording: str
    split: str


def find_videos(video_dir: Path, labels: Path | None) -> list[Source]:
    """The videos of at least two classes.

    Args:
        video_dir: folder of all videos; without `labels`, each of its sub-folders is a class.
        labels: CSV file with the columns path and label, or None.

    Raises:
        DataError: there is no such folder or file, or it has no two classes.
    """
    if not video_dir.is_dir():
        raise DataError(f"VIDEO_FOLDER must be a folder, got {video_dir}")
    try:
        if labels:
            found = FolderVideos(sources_from_labels(labels, video_dir), skipped={}, empty=[])
        else:
            found = find_in_folders(video_dir)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from None
    videos = found.sources
    names = sorted({video.label for video in videos})
    if found.empty:
        raise DataError(
            f"no file of the class folder {found.empty[0]!r} of {video_dir} is a video: remove the folder, or rename "
            "it so that it begins with a dot"
        )
    if len(names) < 2:
        raise DataError(f"there must be videos of two classes at least, {video_dir} has only {names[0]!r}")
    check_no_split_folders(
        video_dir,
        names,
        "put the videos of a class into one folder, and say by --group and --validate which are to be validated on",
    )
    return _mark_copies(video_dir, videos)


def _mark_copies(video_dir: Path, videos: Sequence[Source]) -> list[Source]:
    """The videos, each with the first one that has the same bytes. Only files of equal size are read."""
    files = [video_dir / video.path for video in videos]
    sizes = [file.stat().st_size if file.is_file() else 0 for file in files]
    count, first = Counter(sizes), dict[tuple[int, str], str]()
    marked = []
    for video, file, size in zip(videos, files, sizes, strict=True):
        original = first.setdefault((size, digest(file)), video.path) if size and count[size] > 1 else video.path
        marked.append(video if original == video.path else replace(video, copy_of=original))
    return marked


def class_names(videos: Sequence[Source]) -> list[str]:
    """The classes of the videos, sorted; numbers by value. Folders 1, 2, 3 are three classes: there is no class 0."""
    names = {video.label for video in videos}
    numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


def extract_videos(
    video_dir: Path, out: Path, videos: Sequence[Source], *, labels: Path | None, format: Format, short_side: int
) -> dict[str, Video]:
    """Extracts the frames of all videos to out/frames, or counts them, with a progress bar.

    What was extracted or counted before is not decoded again.

    Args:
        video_dir: folder of all videos.
        out: output directory of the fine-tuning, with classes.txt.
        videos: all that are to be extracted.
        labels: see `find_videos`.
        format: storage of the frames; VIDEO: they are counted, and the records are in out/lengths.
        short_side: of the frames, in pixels.

    Returns:
        The lines of a list, by the path of the video. Unreadable videos have none.

    Raises:
        DataError: no video can be read, or the frames cannot be written.
    """
    list_file = out / "videos.txt"
    list_file.unlink(missing_ok=True)
    options = ExtractionOptions(
        video_dir=video_dir,
        out_dir=out / ("lengths" if format == "VIDEO" else "frames"),
        list_file=list_file,
        labels=labels,
        classes_file=out / "classes.txt",
        format=format,
        short_side=short_side,
        workers=cores(),
    )
    if not extract_dataset(options).usable:
        raise DataError(f"no video of {video_dir} can be read")
    listed = {video.path: video for video in read_list(list_file, num_classes=len({video.label for video in videos}))}
    folders = {video.path: video.path for video in videos} if format == "VIDEO" else frame_folders(videos)
    return {path: listed[folder] for path, folder in folders.items() if folder in listed}


def split_videos(
    videos: Sequence[Source], *, group: str = "", validate: str = "", share: float = 0.25, seed: int = 0
) -> tuple[list[SplitRow], list[str]]:
    """Training and validation videos. All clips of a recording are on one side.

    Args:
        videos: of all classes.
        group: what names the recordings, see `datasets.preparation.splits.recordings`.
        validate: recordings to validate on, with commas between them; empty: chosen by `share` and `seed`.
        share: of each class's videos to validate on.
        seed: of the choice.

    Returns:
        A row for each video, and the classes whose file names do not tell recordings.

    Raises:
        DataError: there is no such recording, or nothing is left to train on or to validate on.
    """
    recording_of, unnamed = recordings(videos, group)
    if validate:
        validation = set(validate.split(","))
        known = sorted(set(recording_of.values()))
        if unknown := sorted(validation.difference(known)):
            raise DataError(
                f"--validate: there is no recording {unknown[0]!r}; there are {len(known)}: {', '.join(known[:8])}"
            )
    else:
        validation = choose_validation(videos, recording_of, share, seed=seed)
    rows = []
    for video in videos:
        recording = recording_of[video.path]
        rows.append(SplitRow(video.path, video.label, recording, "val" if recording in validation else "train"))
    if missing := sorted({row.label for row in rows} - {row.label for row in rows if row.split == "train"}):
        raise DataError(f"all videos of {missing[0]!r} are kept for the validation, none is left to train on")
    if not any(row.split == "val" for row in rows):
        raise DataError("nothing is left to validate on: every class has a single recording; is --group right?")
    return rows, unnamed


def split_table(rows: Sequence[SplitRow]) -> str:
    """The number of videos of each class on each side and of its recordings; below, the guess and how to change it."""
    lines = [f"{'class':<24}{'train':>7}{'val':>5}{'recordings':>12}"]
    single, largest = [], []
    for label in sorted({row.label for row in rows}):
        videos = Counter(row.split for row in rows if row.label == label)
        recordings = Counter(row.recording for row in rows if row.label == label)
        lines.append(f"{label:<24}{videos['train']:>7}{videos['val']:>5}{len(recordings):>12}")
        single += [label] if len(recordings) == 1 else []
        name, count = min(recordings.items(), key=lambda item: (-item[1], item[0]))
        largest += [f"{name!r} ({count} of {label})"] if count > 1 else []
    if single:
        lines.append(f"{len(single)} classes have a single recording, nothing to validate on: {_some(single)}")
    if largest:
        lines.append(f"Videos of one recording are on one side; the largest recordings: {_some(largest)}")
    lines.append("If recordings are wrong, name them by --group: a column of --labels, or an expression for names.")
    return "\n".join(map(printable, lines))


def split_text(rows: Sequence[SplitRow], unnamed: Sequence[str]) -> str:
    """The table of the split, with the classes whose file names tell no recordings, and a note on few videos."""
    told = (
        f"The file names of {', '.join(unnamed)} do not tell the recordings: each video counts as one. If several "
        "clips are of one recording, name the recordings by --group; otherwise the validation accuracy is too high."
    )
    return "\n".join(filter(None, [told if unnamed else "", split_table(rows), _validation_note(rows)]))


def _validation_note(rows: Sequence[SplitRow]) -> str:
    """A warning if there are too few validation videos to tell much; else nothing."""
    count = sum(row.split == "val" for row in rows)
    if count >= ENOUGH_TO_VALIDATE:
        return ""
    low, high = interval(count // 2, count)
    return (
        f"Only {count} validation videos: an accuracy of {100 * (count // 2) / count:.0f} % could then be anything "
        f"from {low:.0f} to {high:.0f} %. More videos, or a larger --share, tell more."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join([*names[:8], *(["..."] if len(names) > 8 else [])])
