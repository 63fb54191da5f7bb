"""Check a list file and its videos before they are trained on.

    python -m tools.check_dataset LIST ROOT [--format FRAME] [--decode]
    python -m tools.check_dataset data/train.txt data/frames --against data/val.txt --classes data/classes.txt --decode

For every line: the video is there, has as many frames as the list says, and, with --decode, each of them decodes and
all are of one size. For the whole: lines that cannot be read, videos listed twice, classes without a video; and with
--against LIST2, videos that are in both lists, by their path (where the roots are the same) or by their contents (the
bytes of the first, the middle and the last frame; of the whole file for VIDEO). Still or equal videos have equal
contents, so two of these may be no mistake.

Where every video has the same problem, a last line says which option may be wrong.

--report writes what was found as JSON: {"ok": ..., "videos": ..., "frames": ..., "classes": {label: videos},
"problems": [{"kind": ..., "path": ..., "line": ..., "reason": ...}]}.

Exit code: 0 if nothing is wrong, 1 if something is (a line each says what), 2 if the arguments are.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from common.errors import DataError
from common.files import make_folder, write_text
from datasets.annotations import Video, read_classes, read_list
from datasets.clips import worker_init
from datasets.readers import FORMATS, Reader, open_reader
from datasets.video_files import VideoFiles

_ANY = 10**9  # classes, where their number is not told


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a video, or with the list as a whole (no path, line 0).

    kind: missing, count, broken, twice, class without videos, shared path or shared contents.
    """

    kind: str
    path: str
    line: int
    reason: str


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parse(arguments)
    try:
        if not 1 <= options.workers <= 4096:
            raise DataError(f"--workers must be in 1..4096, got {options.workers}")
        if options.num_classes is not None and options.num_classes < 1:
            raise DataError(f"--num_classes must be at least 1, got {options.num_classes}")
        if options.report:
            _check_report(options.report)
        names = read_classes(options.classes) if options.classes else []
        num_classes = options.num_classes or len(names) or _ANY
        videos = read_list(options.list, num_classes=num_classes)
        storage = partial(open_reader, options.format, frame_template=options.frame_template)
        reader = storage(options.root, first_frame=options.first_frame)
        others = read_list(options.against, num_classes=num_classes) if options.against else []
        problems = _twice(videos)
        if num_classes < _ANY:
            problems += _without_videos(videos, num_classes, names)
        with _workers(min(options.workers, len(videos))) as run:
            found, digests = _check_all(run, reader, videos, options)
            problems += found
            if options.against:
                other_root = options.against_root or options.root
                other = storage(other_root, first_frame=options.first_frame)
                if os.path.realpath(other_root) == os.path.realpath(options.root):
                    problems += _shared_paths(videos, others, options.against)
                problems += _shared_contents(run, videos, digests, other, others, options.against)
        classes = Counter(video.label for video in videos)
        frames = sum(video.num_frames for video in videos)
        for problem in problems:
            place = f"{options.list}:{problem.line}: {problem.path}: " if problem.line else f"{options.list}: "
            print(place + problem.reason)
        wrong = f"{len(problems)} problems" if problems else "nothing wrong"
        print(f"{options.list}: {len(videos)} videos, {frames} frames, {len(classes)} classes; {wrong}")
        if hint := _hint(len(videos), problems, options):
            print(hint)
        if options.report:
            report = {
                "ok": not problems,
                "videos": len(videos),
                "frames": frames,
                "classes": {label: classes[label] for label in sorted(classes)},
                "problems": [asdict(problem) for problem in problems],
            }
            write_text(options.report, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    except (DataError, OSError, ValueError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"check_dataset: {text}", file=sys.stderr)
        return 2
    return 1 if problems else 0


def check_video(reader: Reader, video: Video, decode: bool) -> tuple[list[Problem], str]:
    """What is wrong with one video, and a digest of its contents, empty where it has none."""

    def problem(kind: str, reason: object) -> Problem:
        return Problem(kind, video.path, video.line, " ".join(str(reason).split()))

    try:
        frames = reader.count(video.path)
    except DataError as error:
        return [problem("missing", error)], ""
    problems = []
    if frames != video.num_frames:
        problems.append(problem("count", f"the list says {video.num_frames} frames, it has {frames}"))
    try:
        if decode and not isinstance(reader, VideoFiles):  # whose count decodes every frame
            # In parts: a long video as a whole may not fit into memory. Each begins with frame 0, for the size.
            for start in range(0, frames, 64):
                reader.read(video.path, [0, *range(start, min(start + 64, frames))])
        digest = hashlib.blake2b(digest_size=16)
        for position in (0, frames // 2, frames - 1) if frames else ():
            digest.update(reader.fingerprint(video.path, position))
    except DataError as error:
        return [*problems, problem("broken", error)], ""
    return problems, digest.hexdigest() if frames else ""


def _check_report(file: Path) -> None:
    """Raises DataError if the report cannot be written: a check of hours would be for nothing."""
    if file.is_dir():
        raise DataError(f"--report must be a file, {file} is a folder")
    try:
        make_folder(file.parent)
    except DataError as error:
        raise DataError(f"--report {file}: {error}") from None


def _hint(videos: int, problems: Sequence[Problem], options: argparse.Namespace) -> str:
    """What may be at the root of it where every video has the same problem, or nothing."""
    kinds = Counter(problem.kind for problem in problems)
    for kind, what in (("missing", "is missing"), ("count", "has another number of frames")):
        if kinds[kind] == videos:
            first = "" if options.format == "VIDEO" else f", or --first_frame {options.first_frame}"
            return f"every video {what}: is ROOT {options.root}, or --format {options.format}{first}, right?"
    return ""


Run = Callable[[Callable[[Video], tuple[list[Problem], str]], Sequence[Video]], Iterable[tuple[list[Problem], str]]]


@contextmanager
def _workers(count: int) -> Iterator[Run]:
    if count == 1:
        yield map
        return
    with ProcessPoolExecutor(count, initializer=worker_init, initargs=(0,)) as pool:
        yield lambda function, videos: pool.map(function, videos, chunksize=8)


def _check_all(
    run: Run, reader: Reader, videos: Sequence[Video], options: argparse.Namespace
) -> tuple[list[Problem], list[str]]:
    problems, digests = [], []
    results = run(partial(check_video, reader, decode=options.decode), videos)
    for found, digest in tqdm(results, total=len(videos), unit="video", dynamic_ncols=True, desc="check"):
        problems += found
        digests.append(digest)
    return problems, digests


def _twice(videos: Sequence[Video]) -> list[Problem]:
    lines: dict[str, int] = {}
    problems = []
    for video in videos:
        if (first := lines.setdefault(video.path, video.line)) != video.line:
            problems.append(Problem("twice", video.path, video.line, f"it is on line {first} already"))
    return problems


def _without_videos(videos: Sequence[Video], num_classes: int, names: Sequence[str]) -> list[Problem]:
    there = {video.label for video in videos}
    told = [f"{label} ({names[label]})" if label < len(names) else str(label) for label in range(num_classes)]
    lacking = [told[label] for label in range(num_classes) if label not in there]
    return [Problem("class without videos", "", 0, f"class {name} has no video") for name in lacking]


def _shared_paths(videos: Sequence[Video], others: Sequence[Video], against: Path) -> list[Problem]:
    lines = {video.path: video.line for video in others}
    return [
        Problem("shared path", video.path, video.line, f"it is also on line {lines[video.path]} of {against}")
        for video in videos
        if video.path in lines
    ]


def _shared_contents(
    run: Run, videos: Sequence[Video], digests: Sequence[str], other: Reader, others: Sequence[Video], against: Path
) -> list[Problem]:
    there: dict[str, Video] = {}
    results = run(partial(check_video, other, decode=False), others)
    for video, (_, digest) in zip(
        others, tqdm(results, total=len(others), unit="video", dynamic_ncols=True, desc="against"), strict=True
    ):
        there.setdefault(digest, video)
    problems = []
    for video, digest in zip(videos, digests, strict=True):
        twin = there.get(digest) if digest else None
        if twin and twin.path != video.path:
            reason = f"its frames are those of {twin.path}, line {twin.line} of {against}"
            problems.append(Problem("shared contents", video.path, video.line, reason))
    return problems


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="check_dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("list", type=Path, metavar="LIST")
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--format", choices=FORMATS, default="FRAME", help="of ROOT (default: %(default)s)")
    parser.add_argument("--frame_template", default="", help="file name or key of a frame (default: the format's)")
    parser.add_argument("--first_frame", type=int, default=1, help="number of a first frame (default: %(default)s)")
    parser.add_argument("--decode", action="store_true", help="decode every frame")
    parser.add_argument("--classes", type=Path, help="class names, one a line: labels must be among them")
    parser.add_argument("--num_classes", type=int, help="instead of --classes")
    parser.add_argument("--against", type=Path, metavar="LIST2", help="the other split, which must share no video")
    parser.add_argument("--against_root", type=Path, metavar="ROOT2", help="its root (default: ROOT)")
    parser.add_argument("--report", type=Path, metavar="FILE.json")
    parser.add_argument("--workers", type=int, default=cores, help="processes (default: one a core, %(default)s here)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
