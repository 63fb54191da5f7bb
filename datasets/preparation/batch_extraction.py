"""A folder of videos to stored frames, the list file that training reads, the class file and a report of problems."""

import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.errors import DataError
from common.files import make_folder, table_cell, write_text
from datasets.annotations import check_relative_path, format_classes, write_classes
from datasets.preparation.class_folders import FolderVideos, check_no_split_folders, find_in_folders
from datasets.preparation.extraction_pool import extract_in_processes
from datasets.preparation.labels import sources_from_labels
from datasets.preparation.packs import PACKS, STAGING, Pack, check_format, open_pack
from datasets.preparation.records import ExtractionJob, clash, expected_record, is_up_to_date, parse_record, read_record
from datasets.preparation.sources import Source, class_names, filter_sources, frame_folders
from datasets.preparation.writers import check_packed_path
from datasets.readers import Format

_MOST_LINES = 10  # of files that are no videos


@dataclass(frozen=True, kw_only=True)
class ExtractionOptions:
    """Which videos become frames, how, and where the results go.

    Args:
        video_dir: the folder of all videos.
        out_dir: the folder of the frames; it has one format.
        list_file: the list to write, a line `path num_frames label` for each usable video.
        labels: label file, see `sources_from_labels`; None: the sub-folders of video_dir are the classes.
        fold: of HMDB51's split files, 1 to 3.
        where: conditions on the columns of the label file, see `filter_sources`.
        classes_file: class names, read if the file exists and written if not; None: classes.txt next to the list.
        report: table of problems; None: the list's name with the extension .report.tsv.
        format: of out_dir.
        short_side: of the frames, in pixels; 0: as in the video. Smaller videos keep their size.
        quality: of the JPEG files, 1 to 100.
        fps: frames a second of the result; 0: all frames.
        num_frames: frames of each result; 0: all frames.
        min_frames: videos with fewer frames are skipped.
        shard_gb: size of a PACKED or SHARDS file in gigabytes; None: 32 or 0.25.
        keep_videos: SHARDS has the video files as they are, in place of frames.
        workers: processes.
    """

    video_dir: Path
    out_dir: Path
    list_file: Path
    labels: Path | None = None
    fold: int = 1
    where: Sequence[str] = ()
    classes_file: Path | None = None
    report: Path | None = None
    format: Format = "FRAME"
    short_side: int = 256
    quality: int = 95
    fps: float = 0
    num_frames: int = 0
    min_frames: int = 1
    shard_gb: float | None = None
    keep_videos: bool = False
    workers: int = 1


@dataclass(frozen=True)
class ExtractionSummary:
    """How many videos were wanted, how many of them are in the list, with how many frames, and how many classes."""

    wanted: int
    usable: int
    frames: int
    classes: int


def extract_dataset(options: ExtractionOptions) -> ExtractionSummary:
    """Extracts videos with a progress bar, and prints a line for every problem to stderr.

    The list is written last, and only if a video is usable. Videos that were extracted with the same settings before
    are not decoded again.

    Raises:
        DataError: labels, conditions or class file are wrong, a folder cannot be written to, or out_dir has frames of
            another format, of another video or with other settings under the same name. Nothing is written then.
        OSError: a file cannot be read or written.
    """
    found = _find(options)
    sources = found.sources
    classes_file = options.classes_file or options.list_file.parent / "classes.txt"
    names = class_names(sources, classes_file, found.empty)
    format_classes(names)  # raises if a name cannot be written
    as_files = options.format == "VIDEO" or options.keep_videos
    folders = {s.path: s.path for s in sources} if as_files else frame_folders(sources)
    sources = filter_sources(sources, options.where)
    # What could fail after hours of work must fail before.
    for folder in (options.out_dir, options.list_file.parent, classes_file.parent):
        make_folder(folder)
    check_format(options.out_dir, options.format)
    results = _Results({source.path: source.label for source in sources}, options.min_frames)
    results.skip(found)
    with open_pack(options.format, options.out_dir, options.shard_gb, keep_videos=options.keep_videos) as pack:
        jobs = _jobs(sources, folders, options, results)
        _check_clashes(jobs, folders, pack, options)
        if not classes_file.exists():
            write_classes(classes_file, names)
        _extract_all(jobs, folders, pack, options, results)
    counts = results.counts
    usable = [source for source in sources if source.path in counts]
    if usable:
        labels = {name: label for label, name in enumerate(names)}
        lines = [f"{folders[source.path]} {counts[source.path]} {labels[source.label]}\n" for source in usable]
        write_text(options.list_file, "".join(lines))
    return ExtractionSummary(len(sources), len(usable), sum(counts.values()), len(names))


def _find(options: ExtractionOptions) -> FolderVideos:
    if options.labels:
        sources = sources_from_labels(options.labels, options.video_dir, fold=options.fold)
        return FolderVideos(sources, skipped={}, empty=[])
    found = find_in_folders(options.video_dir)
    check_no_split_folders(
        options.video_dir,
        [source.label for source in found.sources],
        "extract each of them, with the same --classes and an OUT_DIR of its own",
    )
    return found


def _extract_all(
    jobs: dict[str, ExtractionJob],
    folders: dict[str, str],
    pack: Pack | None,
    options: ExtractionOptions,
    results: "_Results",
) -> None:
    """Extracts the videos and writes the report."""
    left = {}
    for path, job in jobs.items():
        record = parse_record(pack.read_record(folders[path])) if pack else {}
        if _is_done(record, job):
            results.add(path, record["frames"], record.get("problem", ""))
        else:
            left[path] = job
    if options.format == "SHARDS":  # each is a mixture of all classes, whatever their folders
        left = dict(random.Random(0).sample(list(left.items()), len(left)))
    tqdm.monitor_interval = 0  # no thread of the bar's own while processes are forked
    done = extract_in_processes(left, options.workers)
    bar = tqdm(done, total=len(left), unit="video", dynamic_ncols=True, desc="extract", disable=not left)
    for path, frames, problem in bar:
        if pack and frames:
            pack.add(folders[path], left[path].folder)
        results.add(path, frames, problem)
    if pack:
        pack.finish()
        shutil.rmtree(options.out_dir / STAGING, ignore_errors=True)
    results.write(options.report or options.list_file.with_suffix(".report.tsv"))


class _Results:
    """Frames of each usable video by its path, and the table of problems.

    Args:
        labels: class of each video by its path.
        min_frames: videos with fewer frames are not usable.
    """

    def __init__(self, labels: dict[str, str], min_frames: int) -> None:
        self.labels, self.min_frames = labels, min_frames
        self.counts: dict[str, int] = {}
        self._rows = [("path", "label", "kind", "frames", "reason")]

    def add(self, path: str, frames: int, problem: str) -> None:
        """Adds a video. A problem is printed, and gets a row in the table."""
        kind = "incomplete" if frames else "missing" if problem == "there is no such file" else "unreadable"
        if 0 < frames < self.min_frames:
            kind, problem = "too short", f"it has {frames} frames, --min_frames is {self.min_frames}"
        elif frames:
            self.counts[path] = frames
        if problem:
            tqdm.write(f"{_printable(path)}: {problem}", file=sys.stderr)
            self._rows.append((path, self.labels[path], kind, str(frames), problem))

    def skip(self, found: FolderVideos) -> None:
        """Adds the files that are no videos, and prints some of them and the class folders without a video."""
        for number, (path, reason) in enumerate(found.skipped.items()):
            if number < _MOST_LINES:
                print(f"{_printable(path)}: skipped, {reason}", file=sys.stderr)
            self._rows.append((path, "", "skipped", "0", reason))
        if (more := len(found.skipped) - _MOST_LINES) > 0:
            print(f"{more} more files are no videos; the report names them", file=sys.stderr)
        if found.empty:
            names = ", ".join(map(_printable, found.empty[:_MOST_LINES]))
            print(f"{len(found.empty)} class folders have no video: {names}", file=sys.stderr)

    def write(self, file: Path) -> None:
        lines = ("\t".join(table_cell(_printable(cell)) for cell in row) for row in self._rows)
        write_text(file, "".join(f"{line}\n" for line in lines))


def _jobs(
    sources: Sequence[Source], folders: dict[str, str], options: ExtractionOptions, results: _Results
) -> dict[str, ExtractionJob]:
    """The work by the path of the video. Wrong paths go to the results."""
    jobs: dict[str, ExtractionJob] = {}
    packed = options.format in PACKS
    for source in sources:
        folder = folders[source.path]
        try:
            check_relative_path(source.path)
            check_relative_path(folder)
            if options.format == "PACKED":
                check_packed_path(folder)
            if options.keep_videos and (options.video_dir / source.path).is_dir():
                raise DataError("it is a folder of frames, --keep_videos stores files")
        except DataError as error:
            results.add(source.path, 0, str(error))
            continue
        jobs[source.path] = ExtractionJob(
            video=options.video_dir / source.path,
            folder=(options.out_dir / STAGING if packed else options.out_dir) / folder,
            short_side=options.short_side,
            quality=options.quality,
            format="VIDEO" if options.keep_videos else options.format,
            fps=options.fps,
            num_frames=options.num_frames,
        )
    return jobs


def _check_clashes(
    jobs: dict[str, ExtractionJob], folders: dict[str, str], pack: Pack | None, options: ExtractionOptions
) -> None:
    """Checks that no frames of another source or with other settings are where those of a job would be written.

    Raises:
        DataError: there are such frames. The message has the first video, what is there and what is wanted.
    """
    clashes = []
    for path, job in tqdm(jobs.items(), unit="video", dynamic_ncols=True, desc="compare", delay=5):
        if job.is_used_in_place:
            continue
        try:
            expected = expected_record(job)
        except DataError:
            continue  # extraction reports it
        if pack:
            place = f"{options.out_dir}, video {folders[path]}"
            record = parse_record(pack.read_record(folders[path]))
            if (staged := read_record(job.folder)) and clash(staged, expected):
                shutil.rmtree(job.folder)  # unfinished work of another command
        else:
            place, record = str(job.folder), read_record(job.folder)
        if record and (difference := clash(record, expected)):
            clashes.append(f"{place}: {difference}")
    if clashes:
        count = f" ({len(clashes)} videos of {len(jobs)} clash)" if len(clashes) > 1 else ""
        raise DataError(f"{_printable(clashes[0])}{count}: give another OUT_DIR, or remove {options.out_dir}")


def _is_done(record: dict[str, Any], job: ExtractionJob) -> bool:
    try:
        return bool(record) and is_up_to_date(record, expected_record(job))
    except DataError:
        return False


def _printable(text: str) -> str:
    """A file name may contain a line feed, or bytes that are not text."""
    return text if text.isprintable() else ascii(text)
