"""Videos in class folders: which files are videos, behind symbolic links too, and what is skipped."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.errors import DataError
from datasets.preparation.sources import OTHER_VIDEO_EXTENSIONS, VIDEO_EXTENSIONS, Source
from datasets.video_formats import why_no_video

SPLIT_FOLDERS = frozenset(("train", "val", "valid", "validation", "test"))
_SOUND = frozenset((".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav", ".wma"))  # with a cover it has a picture


@dataclass(frozen=True)
class FolderVideos:
    """What was found in class folders.

    sources: the videos, sorted by path.
    skipped: why a file or link is no video, by its path.
    empty: class folders without a video, sorted.
    """

    sources: list[Source]
    skipped: dict[str, str]
    empty: list[str]


def sources_from_folders(video_dir: Path) -> list[Source]:
    """The videos that `find_in_folders` finds, with its errors."""
    return find_in_folders(video_dir).sources


def find_in_folders(video_dir: Path) -> FolderVideos:
    """Finds the videos in the class folders of a folder.

    A file is a video if it has an extension of VIDEO_EXTENSIONS, or opens as a video. Symbolic links count as what they
    lead to; within a class, each folder is searched once.

    Args:
        video_dir: its sub-folders are the classes; deeper folders do not matter. Names that begin with a dot are
            ignored.

    Raises:
        DataError: there is no video, or a video is not in a sub-folder.
        OSError: a folder cannot be read.
    """
    sources: list[Source] = []
    skipped: dict[str, str] = {}
    empty: list[str] = []
    for name in _names(video_dir):
        if not (video_dir / name).is_dir():
            if PurePosixPath(name).suffix.lower() in VIDEO_EXTENSIONS | OTHER_VIDEO_EXTENSIONS:
                raise DataError(f"{name!r} is in no class folder of {video_dir}; move it, or give labels in a CSV file")
            if (video_dir / name).is_symlink():
                skipped[name] = "it is a link to nothing"
            continue
        paths = _videos(video_dir, name, skipped)
        sources += (Source(path, name) for path in paths)
        if not paths:
            empty.append(name)
    if not sources:
        wanted = ", ".join(sorted(VIDEO_EXTENSIONS | OTHER_VIDEO_EXTENSIONS))
        raise DataError(f"there is no video in the sub-folders of {video_dir} (extensions: {wanted})")
    return FolderVideos(sorted(sources, key=lambda source: source.path), skipped, empty)


def check_no_split_folders(video_dir: Path, labels: Sequence[str], way_out: str) -> None:
    """Checks that the sub-folders of a folder are classes, not the splits of a data set.

    Args:
        video_dir: the folder.
        labels: the sub-folders with videos.
        way_out: what to do.

    Raises:
        DataError: all of them have the name of a split.
    """
    if labels and {name.lower() for name in labels} <= SPLIT_FOLDERS:
        names = ", ".join(sorted(set(labels)))
        raise DataError(f"the sub-folders of {video_dir} must be classes, they are {names}: {way_out}")


def videos_below(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The paths of all videos below a folder, as `find_in_folders` finds those of a class; and what was skipped, why.

    Raises:
        OSError: a folder cannot be read.
    """
    skipped: dict[str, str] = {}
    return sorted(_videos(folder, ".", skipped)), skipped


def files_below(video_dir: Path) -> Iterator[str]:
    """The paths of all files below a folder, behind symbolic links too; each folder is searched once."""
    yield from _files(video_dir, ".", {})


def _videos(video_dir: Path, name: str, skipped: dict[str, str]) -> list[str]:
    """The paths of the videos of a class folder; adds the other files to what is skipped."""
    paths = []
    for path in _files(video_dir, name, skipped):
        if problem := _why_no_video(video_dir / path):
            skipped[path] = problem
        else:
            paths.append(path)
    return paths


def _files(video_dir: Path, name: str, skipped: dict[str, str]) -> Iterator[str]:
    """The files of a class folder. Links in a loop, or to a folder that was searched already, are skipped."""
    seen = set() if name == "." else {_identity(video_dir)}
    for folder, subfolders, names in os.walk(video_dir / name, onerror=_raise, followlinks=True):
        path = Path(folder).relative_to(video_dir)
        if (identity := _identity(folder)) in seen:
            skipped[path.as_posix()] = "it is a link to a folder that is searched already"
            subfolders.clear()
            continue
        seen.add(identity)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from ((path / name).as_posix() for name in sorted(names) if not name.startswith("."))


def _names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _why_no_video(file: Path) -> str:
    extension = file.suffix.lower()
    if extension in VIDEO_EXTENSIONS:  # a damaged one is reported as such
        return ""
    return "it is a sound file" if extension in _SOUND else why_no_video(file)


def _raise(error: OSError) -> None:
    raise error
