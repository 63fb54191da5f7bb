"""What is wrong with a list file and its videos: missing, of another length, broken, or in two lists."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.errors import DataError, one_line
from datasets.annotations import Video, read_classes, read_list
from datasets.limits import max_clip_pixels
from datasets.preparation.extraction_pool import CRASHED, run_in_processes
from datasets.readers import USUAL, Format, Reader, ReaderOptions, open_reader
from datasets.shards import ShardedVideos
from datasets.video_files import VideoFiles

_ANY = 10**9  # classes, where their number is not known
_NAMED = 8  # of the classes without a video
_READ_AT_ONCE, _PIXELS_AT_ONCE = 64, 1 << 26  # a long or large video as a whole may not fit into memory


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Which list is checked, and how.

    Args:
        list_file: the list.
        root: of its videos; for SHARDS it may be a URL.
        format: of root.
        reader_options: see `open_reader`.
        decode: decode every frame.
        classes_file: class names; labels must be among them, and each class must have a video.
        num_classes: instead of classes_file; None: any label is right.
        against: list of the other split, which must share no video.
        against_root: of the other split; None: root.
        workers: processes.
    """

    list_file: Path
    root: str | Path
    format: Format = "FRAME"
    reader_options: ReaderOptions = USUAL
    decode: bool = False
    classes_file: Path | None = None
    num_classes: int | None = None
    against: Path | None = None
    against_root: str | Path | None = None
    workers: int = 1

    def reader(self, root: str | Path) -> Reader:
        """Raises DataError if the folder has not this format, or the template has no place for a number."""
        try:
            return open_reader(self.format, root, self.reader_options)
        except ValueError as error:
            raise DataError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a video, or with the list as a whole (no path, line 0).

    kind: missing, count, broken, twice, class without videos, shared path or shared contents.
    """

    kind: str
    path: str
    line: int
    reason: str


@dataclass(frozen=True)
class CheckResult:
    """What was checked and found.

    Args:
        videos: lines of the list.
        frames: of all videos, as the list says.
        classes: number of videos by label, in the order of the labels.
        problems: all that is wrong.
    """

    videos: int
    frames: int
    classes: dict[int, int]
    problems: list[Problem]

    def as_dict(self) -> dict[str, Any]:
        """The report, ready for JSON."""
        return {
            "ok": not self.problems,
            "videos": self.videos,
            "frames": self.frames,
            "classes": self.classes,
            "problems": [asdict(problem) for problem in self.problems],
        }

    def problem_of_all(self) -> str:
        """The kind of problem, missing or count, that every video has; or nothing."""
        kinds = Counter(problem.kind for problem in self.problems)
        return next((kind for kind in ("missing", "count") if kinds[kind] == self.videos), "")


def check_list(options: CheckOptions) -> CheckResult:
    """Checks a list and its videos, with a progress bar.

    Raises:
        DataError: a list or class file cannot be read, or a root is not a folder of this format.
    """
    names = read_classes(options.classes_file) if options.classes_file else []
    num_classes = options.num_classes or len(names) or _ANY
    videos = read_list(options.list_file, num_classes=num_classes)
    reader = options.reader(options.root)
    others = read_list(options.against, num_classes=num_classes) if options.against else []
    problems = _repeated_paths(videos)
    if num_classes < _ANY:
        problems += _classes_without_videos(videos, num_classes, names)
    found, digests = _check_all(reader, videos, decode=options.decode, workers=options.workers)
    problems += found
    if options.against:
        other_root = options.against_root or options.root
        other_reader = options.reader(other_root)
        if os.path.realpath(other_root) == os.path.realpath(options.root):
            problems += _shared_paths(videos, others, options.against)
        _, other_digests = _check_all(other_reader, others, decode=False, workers=options.workers, desc="against")
        problems += _shared_contents(videos, digests, others, other_digests, options.against)
    classes = Counter(video.label for video in videos)
    return CheckResult(
        videos=len(videos),
        frames=sum(video.num_frames for video in videos),
        classes={label: classes[label] for label in sorted(classes)},
        problems=problems,
    )


def check_video(reader: Reader, video: Video, decode: bool) -> tuple[list[Problem], str]:
    """What is wrong with one video, and a digest of its contents, empty where it has none."""

    def problem(kind: str, reason: object) -> Problem:
        return Problem(kind, video.path, video.line, one_line(reason))

    try:
        frames = reader.count(video.path)
    except DataError as error:
        return [problem("missing", error)], ""
    problems = []
    try:
        reasons = [f"the list says {video.num_frames} frames, it has {frames}"] if frames != video.num_frames else []
        reasons += [gap] if (gap := reader.uncounted(video.path)) else []
        if reasons:
            problems.append(problem("count", "; ".join(reasons)))
        if decode and not isinstance(reader, VideoFiles):  # whose count decodes every frame
            _decode_all(reader, video.path, frames)
        digest = hashlib.blake2b(digest_size=16)
        for position in (0, frames // 2, frames - 1) if frames else ():
            digest.update(reader.fingerprint(video.path, position))
    except DataError as error:
        return [*problems, problem("broken", error)], ""
    return problems, digest.hexdigest() if frames else ""


def _decode_all(reader: Reader, path: str, frames: int) -> None:
    """Decodes all frames, some at a time, each time with frame 0, for the size. Raises DataError as `Reader.read`."""
    if not frames:
        return
    _, height, width, _ = reader.read(path, [0]).shape
    at_once = max(1, min(_READ_AT_ONCE, min(_PIXELS_AT_ONCE, max_clip_pixels()) // (height * width) - 1))
    for start in range(0, frames, at_once):
        reader.read(path, [0, *range(start, min(start + at_once, frames))])


def _check_all(
    reader: Reader, videos: Sequence[Video], *, decode: bool, workers: int, desc: str = "check"
) -> tuple[list[Problem], list[str]]:
    """The problems of all videos, and the digest of each video's contents. A video may crash the process it is in."""
    tqdm.monitor_interval = 0  # no thread of the bar's own while processes are forked
    jobs = dict(enumerate(videos))
    if isinstance(reader, ShardedVideos):  # shard after shard, so that each is downloaded once
        jobs = dict(sorted(jobs.items(), key=lambda job: reader.shard_of(job[1].path)))
    found = run_in_processes(partial(check_video, reader, decode=decode), jobs, workers)
    results = dict(tqdm(found, total=len(videos), unit="video", dynamic_ncols=True, desc=desc))
    problems: list[Problem] = []
    digests = []
    for index, video in enumerate(videos):
        of_video, digest = results[index] or ([Problem("broken", video.path, video.line, CRASHED)], "")
        problems += of_video
        digests.append(digest)
    return problems, digests


def _repeated_paths(videos: Sequence[Video]) -> list[Problem]:
    lines: dict[str, int] = {}
    problems = []
    for video in videos:
        if (first := lines.setdefault(video.path, video.line)) != video.line:
            problems.append(Problem("twice", video.path, video.line, f"it is on line {first} already"))
    return problems


def _classes_without_videos(videos: Sequence[Video], num_classes: int, names: Sequence[str]) -> list[Problem]:
    labels = {video.label for video in videos}
    shown = [f"{label} ({names[label]})" if label < len(names) else str(label) for label in range(num_classes)]
    missing = [shown[label] for label in range(num_classes) if label not in labels]
    if not missing:
        return []
    some = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
    what = f"class {some} has no video" if len(missing) == 1 else f"{len(missing)} classes have no video: {some}"
    return [Problem("class without videos", "", 0, what)]


def _shared_paths(videos: Sequence[Video], others: Sequence[Video], against: Path) -> list[Problem]:
    lines = {video.path: video.line for video in others}
    return [
        Problem("shared path", video.path, video.line, f"it is also on line {lines[video.path]} of {against}")
        for video in videos
        if video.path in lines
    ]


def _shared_contents(
    videos: Sequence[Video],
    digests: Sequence[str],
    others: Sequence[Video],
    other_digests: Sequence[str],
    against: Path,
) -> list[Problem]:
    """Videos whose frames are those of a video of the other list under another path."""
    first_of: dict[str, Video] = {}
    for video, digest in zip(others, other_digests, strict=True):
        first_of.setdefault(digest, video)
    problems = []
    for video, digest in zip(videos, digests, strict=True):
        twin = first_of.get(digest) if digest else None
        if twin and twin.path != video.path:
            reason = f"its frames are those of {twin.path}, line {twin.line} of {against}"
            problems.append(Problem("shared contents", video.path, video.line, reason))
    return problems
