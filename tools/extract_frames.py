"""Decode videos to numbered JPEG frames and write the list file that training reads.

    python -m tools.extract_frames VIDEO_DIR OUT_DIR --list LIST.txt [--short_side 256] [--labels LABELS.csv]

Classes are the sub-folders of VIDEO_DIR, or the labels of a CSV file with the columns `path` (relative to VIDEO_DIR)
and `label`; others are ignored unless --where selects by them. Labels are numbered in sorted order over all of
VIDEO_DIR or the whole CSV, before any selection, and their names are written to classes.txt beside the list; a file
that is there already is used instead, so that the lists of one data set agree. Labels that are all whole numbers stay
what they are.

Frames go to OUT_DIR/<path of the video without extension>/00001.jpg and so on; videos that differ in the extension
alone keep it. The short side is resized to --short_side pixels; smaller videos are left as they are, as the transforms
resize anyway. The frames that the list counts were really decoded, whatever the video announces. What was extracted
before with the same settings is not decoded again, and frames of an interrupted run never count as done.

Exit code: 0 if all is well, 1 if a video had to be skipped (one line each says why; the list holds the others), 2 if
the arguments are wrong.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

if not __package__:  # run as a file: the project's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.annotations import DataError, check_relative_path, write_classes, write_text
from datasets.sources import Source, class_names, frame_folders, select, sources_from_csv, sources_from_folders

RECORD = "extracted.json"  # in every finished folder: what it was made from, and how


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs: the video, the folder of its frames, short side (pixels, 0: as it is), JPEG quality."""

    video: Path
    folder: Path
    short_side: int
    quality: int


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parse(arguments)
    try:
        _check(options)
        sources = sources_from_csv(options.labels) if options.labels else sources_from_folders(options.video_dir)
        classes_file = options.classes or options.list.parent / "classes.txt"
        names = class_names(sources, classes_file)
        folders = frame_folders(sources)
        sources = select(sources, options.where)
        # What could fail after hours of work must fail before.
        for folder in (options.out_dir, options.list.parent, classes_file.parent):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise DataError(f"the folder {folder} cannot be written to")
        if not classes_file.exists():
            write_classes(classes_file, names)
        counts = _extract_all(sources, folders, options)
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


def extract(job: Job) -> tuple[int, str]:
    """Extract one video, unless that was done before. Returns the number of frames and, where there is one, a problem.

    No frames: the video must be skipped. Frames and a problem: it is usable, but much shorter than it announces.
    """
    try:
        if not job.video.is_file():
            return 0, "there is no such file" if not job.video.exists() else "this is no file"
        status = job.video.stat()
        if not status.st_size:
            return 0, "the file is empty"
        made = {"source": job.video.name, "bytes": status.st_size, "modified": status.st_mtime_ns}
        made |= {"short_side": job.short_side, "quality": job.quality}
        if job.folder.exists():
            record = _read_record(job.folder)
            if not record:
                return 0, f"the folder {job.folder} is in the way: it was not made by extract_frames"
            if made.items() <= record.items() and _frame(job.folder, record["frames"]).exists():
                return record["frames"], ""
        partial = job.folder.with_name(f".{job.folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted run
        try:
            partial.mkdir(parents=True)
            frames, announced = _decode(job, partial)
            if not frames:
                return 0, "no frame of it can be decoded"
            (partial / RECORD).write_text(json.dumps(made | {"frames": frames}), encoding="utf-8")
            if job.folder.exists():  # made with other settings, or from another file
                shutil.rmtree(job.folder)
            partial.rename(job.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, cv2.error) as error:
        return 0, " ".join(str(error).split())
    # Announcing a frame too many, or an estimate from the duration, is common. A truncated file lacks more.
    return frames, f"only {frames} of {announced} announced frames can be decoded" if frames < 0.9 * announced else ""


def _decode(job: Job, folder: Path) -> tuple[int, int]:
    """Write the frames of a video to a folder. Returns how many there are, and how many the video announces."""
    # By FFmpeg alone: other backends take a `%` in the name for a series of pictures. Absolute, so that no name looks
    # like an address. OpenCV turns frames upright by the rotation in the video's metadata.
    capture = cv2.VideoCapture(os.path.abspath(job.video), cv2.CAP_FFMPEG)
    announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    frames = 0
    size: tuple[int, int] | None = None
    while True:
        there, frame = capture.read()
        if not there:
            return frames, announced
        height, width = frame.shape[:2]
        if size is None:  # the first frame decides: all frames of a video must be of one size
            scale = min(1.0, job.short_side / min(height, width)) if job.short_side else 1.0
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if (width, height) != size:
            frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        encoded, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, job.quality])
        if not encoded:
            raise OSError(f"frame {frames + 1} cannot be encoded as JPEG")
        frames += 1
        _frame(folder, frames).write_bytes(data.tobytes())  # not cv2.imwrite, which cannot write to every name


def _frame(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.jpg"


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("frames"), int) else {}


def _extract_all(sources: Sequence[Source], folders: dict[str, str], options: argparse.Namespace) -> dict[str, int]:
    """Extract with a progress bar and a line for every problem. Returns the frames of each usable video by its path."""
    jobs, counts = {}, {}
    for source in sources:
        try:
            check_relative_path(source.path)
            check_relative_path(folders[source.path])
        except DataError as error:
            _report(source.path, str(error))
            continue
        video, folder = options.video_dir / source.path, options.out_dir / folders[source.path]
        jobs[source.path] = Job(video, folder, options.short_side, options.quality)
    tqdm.monitor_interval = 0  # no thread of the bar's own while processes are forked
    for path, frames, problem in tqdm(
        _run(jobs, options.workers), total=len(jobs), unit="video", dynamic_ncols=True, desc="extract"
    ):
        if frames:
            counts[path] = frames
        if problem:
            _report(path, problem)
    return counts


def _run(jobs: dict[str, Job], workers: int) -> Iterator[tuple[str, int, str]]:
    """Extract in several processes; yields path, frames and problem of each video as it is done."""
    left = dict(jobs)
    if not left:
        return
    with ProcessPoolExecutor(min(workers, len(left)), initializer=_start_worker) as pool:
        try:
            futures = {pool.submit(extract, job): path for path, job in jobs.items()}
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
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # nothing: what matters is reported by the parent
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(0)
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _report(path: str, problem: str) -> None:
    # A name may hold a line feed, or bytes that are no text.
    tqdm.write(f"{path if path.isprintable() else ascii(path)}: {problem}", file=sys.stderr)


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
    parser.add_argument("--labels", type=Path, metavar="LABELS.csv", help="path,label[,...] instead of sub-folders")
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
    for name, low, high in (("short_side", 0, 65535), ("workers", 1, 4096), ("quality", 1, 100)):
        if not low <= getattr(options, name) <= high:
            raise DataError(f"--{name} must be in {low}..{high}, got {getattr(options, name)}")


if __name__ == "__main__":
    sys.exit(main())
