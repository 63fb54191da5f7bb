"""Decode videos to numbered JPEG frames and write the list file that training reads.

    python -m tools.extract_frames VIDEO_DIR OUT_DIR --list LIST.txt [--short_side 256] [--labels LABELS.csv]

Classes are the sub-folders of VIDEO_DIR, or those of --labels: a CSV file with the columns `path` (relative to
VIDEO_DIR) and `label`, or the label files of Kinetics (CSV), UCF101 (TXT), HMDB51 (folder of split files, --fold) and
Something-Something V1 (CSV; its frame folders) and V2 (JSON). Other columns are ignored unless --where selects by them.
Labels are numbered in sorted order over all of VIDEO_DIR or the whole file, before any selection, and their names are
written to classes.txt beside the list; a file that is there already is used instead, so that the lists of one data set
agree. Labels that are all whole numbers stay what they are.

--format says what OUT_DIR becomes: FRAME, OUT_DIR/<path of the video without extension>/00001.jpg and so on; LMDB, an
environment in such a folder for every video; PACKED, few files of --shard_gb with many videos each; VIDEO, nothing but
records, for lists of the video files themselves, counted. Videos that differ in the extension alone keep it. The short
side is resized to --short_side pixels; smaller videos are left as they are, as the transforms resize anyway. --fps or
--num_frames thins (or repeats) the frames. Frames that are given in folders are stored as they are; as FRAME they stay
where they are, and the list is relative to VIDEO_DIR.

An OUT_DIR holds one format: another is refused.

The frames that the list counts were really decoded, whatever the video announces. What was extracted before with the
same settings is not decoded again, and frames of an interrupted run never count as done. --report, by default beside
the list, is a table of the videos that are missing, unreadable, too short (--min_frames) or incomplete, with reasons.

Exit code: 0 if all is well, 1 if a video had to be skipped (one line each says why; the list holds the others), 2 if
the arguments are wrong.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

import cv2
from tqdm import tqdm

if not __package__:  # run as a file: the project's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import DataError
from common.files import write_text
from datasets.annotations import check_relative_path, write_classes
from datasets.lmdb_frames import SHARD_PATTERN
from datasets.preparation.extraction import ExtractionJob, extract_video, is_up_to_date, read_record
from datasets.preparation.labels import sources_from_labels
from datasets.preparation.sources import Source, class_names, filter_sources, frame_folders, sources_from_folders
from datasets.preparation.writers import RECORD_FILE, PackedWriter, check_packed_path
from datasets.readers import FORMATS

STAGING = ".staging"  # below OUT_DIR: finished videos that are not in the pack yet


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parse(arguments)
    try:
        _check(options)
        sources = (
            sources_from_labels(options.labels, options.video_dir, fold=options.fold)
            if options.labels
            else sources_from_folders(options.video_dir)
        )
        classes_file = options.classes or options.list.parent / "classes.txt"
        names = class_names(sources, classes_file)
        folders = frame_folders(sources) if options.format != "VIDEO" else {s.path: s.path for s in sources}
        sources = filter_sources(sources, options.where)
        # What could fail after hours of work must fail before.
        for folder in (options.out_dir, options.list.parent, classes_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise DataError(f"the folder {folder} cannot be written to")
        if (held := _format_of(options.out_dir)) not in ("", options.format):
            raise DataError(f"{options.out_dir} holds frames as {held}, not as {options.format}: give another OUT_DIR")
        if not classes_file.exists():
            write_classes(classes_file, names)
        with contextlib.ExitStack() as stack:
            pack = None
            if options.format == "PACKED":
                pack = stack.enter_context(
                    contextlib.closing(PackedWriter(options.out_dir, round(options.shard_gb * 1e9)))
                )
            counts = _extract_all(sources, folders, pack, options)
        done = [source for source in sources if source.path in counts]
        if done:
            labels = {name: label for label, name in enumerate(names)}
            lines = [f"{folders[source.path]} {counts[source.path]} {labels[source.label]}\n" for source in done]
            write_text(options.list, "".join(lines))
            print(f"{options.list}: {len(done)} videos, {sum(counts.values())} frames, {len(names)} classes")
    except (DataError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"extract_frames: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("extract_frames: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    if len(done) < len(sources):
        rest = "" if done else f"; none is left, so {options.list} was not written"
        print(f"extract_frames: {len(sources) - len(done)} of {len(sources)} videos skipped{rest}", file=sys.stderr)
        return 1
    return 0


def _format_of(out_dir: Path) -> str:
    """As what an earlier run wrote to a folder: a file of packed frames, or any video's record, tells; or nothing."""
    if any(path.is_file() for path in out_dir.glob(SHARD_PATTERN)):
        return "PACKED"
    # A record is found soon, where there is one; millions of other people's frames are not worth the time.
    for folder, subfolders, names in islice(os.walk(out_dir), 10_000):
        # Here lies what a killed run was at; it is of no format yet.
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if RECORD_FILE in names and (record := read_record(Path(folder))):
            return str(record.get("format", "FRAME"))
    return ""


def _extract_all(
    sources: Sequence[Source], folders: dict[str, str], pack: PackedWriter | None, options: argparse.Namespace
) -> dict[str, int]:
    """Extract with a progress bar and a line for every problem. Returns the frames of each usable video by its path."""
    jobs: dict[str, ExtractionJob] = {}
    counts: dict[str, int] = {}
    labels = {source.path: source.label for source in sources}
    rows = ["path\tlabel\tkind\tframes\treason\n"]

    def result(path: str, frames: int, problem: str) -> None:
        kind = "incomplete" if frames else "missing" if problem == "there is no such file" else "unreadable"
        if 0 < frames < options.min_frames:
            kind, problem = "too short", f"it has {frames} frames, --min_frames is {options.min_frames}"
        elif frames:
            counts[path] = frames
        if problem:
            _report(path, problem)
            cells = (path, labels[path], kind, str(frames), problem)
            rows.append("\t".join(_cell(text) for text in cells) + "\n")

    out_dir, packed = options.out_dir, pack is not None
    for source in sources:
        folder = folders[source.path]
        try:
            check_relative_path(source.path)
            check_relative_path(folder)
            if packed:
                check_packed_path(folder)
        except DataError as error:
            result(source.path, 0, str(error))
            continue
        job = ExtractionJob(
            options.video_dir / source.path,
            (out_dir / STAGING if packed else out_dir) / folder,
            options.short_side,
            options.quality,
            options.format,
            options.fps,
            options.num_frames,
        )
        record = pack.read_record(folder) if pack else {}
        if is_up_to_date(record, job):
            result(source.path, record["frames"], record.get("problem", ""))
        else:
            jobs[source.path] = job
    tqdm.monitor_interval = 0  # no thread of the bar's own while processes are forked
    for path, frames, problem in tqdm(
        _run(jobs, options.workers), total=len(jobs), unit="video", dynamic_ncols=True, desc="extract"
    ):
        if pack and frames:
            pack.add(folders[path], jobs[path].folder)
        result(path, frames, problem)
    if pack:
        shutil.rmtree(out_dir / STAGING, ignore_errors=True)
    write_text(options.report or options.list.with_suffix(".report.tsv"), "".join(rows))
    return counts


def _run(jobs: dict[str, ExtractionJob], workers: int) -> Iterator[tuple[str, int, str]]:
    """Extract in several processes; yields path, frames and problem of each video as it is done."""
    left = dict(jobs)
    if not left:
        return
    with ProcessPoolExecutor(min(workers, len(left)), initializer=_start_worker) as pool:
        try:
            futures = {pool.submit(extract_video, job): path for path, job in jobs.items()}
            for future in as_completed(futures):
                path, result = futures[future], future.result()
                del left[path]
                yield path, *result
        except BrokenProcessPool:
            pass
        except BaseException:  # Ctrl-C among them: what has not begun need not begin
            pool.shutdown(cancel_futures=True)
            raise
    # A video can crash the decoder and takes the whole pool with it. Halving what is left finds it.
    paths = list(left)
    if len(jobs) == 1 and paths:
        yield paths[0], 0, "the decoder crashed on it, or was killed"
        return
    middle = (len(paths) + 1) // 2
    for half in (paths[:middle], paths[middle:]):
        yield from _run({path: left[path] for path in half}, workers)


def _start_worker() -> None:
    """A worker is quiet, has one thread, and goes with its parent even if that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(0)
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _report(path: str, problem: str) -> None:
    tqdm.write(f"{_cell(path)}: {problem}", file=sys.stderr)


def _cell(text: str) -> str:
    # A name may hold a line feed, or bytes that are no text.
    return text if text.isprintable() else ascii(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="extract_frames", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    where = "only the rows of --labels with one of these values (!= for none of them); may be repeated, all must hold"
    parser.add_argument("video_dir", type=Path, metavar="VIDEO_DIR")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--list", type=Path, required=True, metavar="LIST.txt", help="the list file to write")
    parser.add_argument("--short_side", type=int, default=256, help="pixels; 0 keeps the size (default: %(default)s)")
    parser.add_argument("--labels", type=Path, metavar="LABELS", help="label file, instead of sub-folders")
    parser.add_argument("--fold", type=int, default=1, help="of HMDB51's split files, 1 to 3 (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="FRAME", help="of OUT_DIR (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=0, help="frames a second of the result (default: all frames)")
    parser.add_argument("--num_frames", type=int, default=0, help="frames of every result (default: all frames)")
    parser.add_argument("--min_frames", type=int, default=1, help="shorter videos are skipped (default: %(default)s)")
    parser.add_argument("--shard_gb", type=float, default=32, help="size of a PACKED file (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="table of problems (default: LIST.report.tsv beside the list)")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=V1,V2", help=where)
    parser.add_argument("--classes", type=Path, help="class names, one a line (default: classes.txt beside the list)")
    parser.add_argument("--workers", type=int, default=cores, help="processes (default: one a core, %(default)s here)")
    parser.add_argument("--quality", type=int, default=95, help="of the JPEG files, 1 to 100 (default: %(default)s)")
    return parser.parse_args(arguments)


def _check(options: argparse.Namespace) -> None:
    if not options.video_dir.is_dir():
        raise DataError(f"VIDEO_DIR must be a folder, {options.video_dir} is none")
    if options.list.is_dir():
        raise DataError(f"--list must be a file, {options.list} is a folder")
    if options.where and not options.labels:
        raise DataError("--where selects rows of --labels, which is not given")
    if options.fps and options.num_frames:
        raise DataError("--fps and --num_frames exclude each other")
    if options.format == "VIDEO" and (options.fps or options.num_frames):
        raise DataError("--fps and --num_frames need frames: VIDEO reads the files as they are")
    limits = [("short_side", 0, 65535), ("workers", 1, 4096), ("quality", 1, 100), ("fold", 1, 3), ("fps", 0, 1000)]
    limits += [("num_frames", 0, 99999), ("min_frames", 1, 10**9), ("shard_gb", 0, 10000)]
    for name, low, high in limits:
        if not low <= getattr(options, name) <= high:
            raise DataError(f"--{name} must be in {low}..{high}, got {getattr(options, name)}")


if __name__ == "__main__":
    sys.exit(main())
