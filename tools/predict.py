"""What videos show, by a checkpoint alone: it carries configuration and class names.

    python -m tools.predict VIDEO [VIDEO ...] --checkpoint FILE
    python -m tools.predict FOLDER 'clips/*.mp4' --checkpoint FILE --json
    python -m tools.predict LONG.mp4 --checkpoint FILE --window 2 --stride 1
    python -m tools.predict --camera 0 --checkpoint FILE

Views are those of the checkpoint's own validation unless --clips and --crops say otherwise, and so are the scores.
--window cuts a video into pieces of so many seconds and predicts each as a video of its own; --camera does so with the
last seconds, again and again until Ctrl-C. --json prints an object a line: for each video, or each look at the camera.
Exit code: 0; 1 if a video could not be predicted (the others are); 2 for a mistake that stops everything.
"""

import argparse
import glob
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import sifa
from common.errors import DataError, UserError
from datasets.preparation.sources import VIDEO_EXTENSIONS
from datasets.video_files import open_video
from sifa.predictor import Predictor, count_frames

USUAL_RATE = 25.0
_TIMELINE = 60  # letters at most
_LONGEST = 24 * 60 * 60  # seconds of a window


@dataclass(frozen=True)
class Span:
    """Frames start..end-1 of a video, and what they show: (classes,)."""

    start: int
    end: int
    probabilities: Tensor


def find_videos(paths: Sequence[str]) -> list[Path]:
    """The files that are named, those in folders that are named, and those that patterns stand for, in this order.

    A folder without a video stands for itself, so that it fails in its turn, as a file that is none does.

    Raises UserError for a name that stands for nothing, and where there are folders without a video alone.
    """
    found: list[Path] = []
    for text in paths:
        # An empty name is the folder one is in to Path, and a mistake in a script to whoever wrote it.
        matches = [text] if text and Path(text).exists() else sorted(glob.glob(text, recursive=True))
        if not matches:
            raise UserError(
                f"{text or 'an empty name'}: there is no such file or folder, and as a pattern it fits none"
            )
        for path in map(Path, matches):
            if not path.is_dir():
                found.append(path)
                continue
            inside = [
                file for file in sorted(path.rglob("*")) if file.suffix.lower() in VIDEO_EXTENSIONS and file.is_file()
            ]
            found += inside or [path]
    if found and all(path.is_dir() for path in found):
        raise UserError("; ".join(map(_nothing_in, found)))
    return found


def _nothing_in(folder: Path) -> str:
    return f"there is no video in the folder {folder} (extensions: {', '.join(sorted(VIDEO_EXTENSIONS))})"


def spans(frames: Iterable[np.ndarray], loaded: Predictor, length: int, stride: int) -> Iterator[Span]:
    """Predicts every `length` frames, `stride` frames apart, each as a video of its own.

    The end is covered: the last span ends with the last frame. Fewer frames than one span make one. Only the crops of
    one span are held in memory.

    Args:
        frames: uint8 (H, W, 3), RGB.
    """
    kept: deque[Tensor] = deque(maxlen=length)  # (num_crops, 1, S, S, 3)

    def predicted(end: int) -> Span:
        crops = list(kept)
        clips = [torch.cat([crops[at] for at in clip], dim=1) for clip in loaded.positions(len(crops))]
        return Span(end - len(crops), end, loaded.probabilities(torch.cat(clips)).mean(0))

    done = count = 0
    for count, frame in enumerate(frames, start=1):
        kept.append(loaded.crops(frame[None]))
        if count >= length and (count - length) % stride == 0:
            yield predicted(count)
            done = count
    if done < count:
        yield predicted(count)


def read_frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames that come, uint8 (H, W, 3), RGB."""
    while (got := capture.read())[0]:
        yield cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB)


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Frames a second, 25 where that is not told."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate < 1000 else USUAL_RATE


def announced_frames(capture: cv2.VideoCapture) -> int:
    """How many frames a file says that it has, 0 where it does not say."""
    return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)


def top(probabilities: Tensor, classes: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The most probable classes, as they are printed with --json."""
    values, labels = probabilities.topk(min(count, len(classes)))
    return [
        {"class": classes[label], "label": label, "probability": round(value, 6)}
        for value, label in zip(values.tolist(), labels.tolist(), strict=True)
    ]


# ---- What is printed ------------------------------------------------------------------------------------------------


def table(best: Sequence[dict[str, Any]]) -> str:
    """A line for each class: its probability, its name, and a bar."""
    width = max(len(one["class"]) for one in best)
    lines = [
        f"{100 * one['probability']:8.2f} %  {one['class']:<{width}}  {'█' * round(20 * one['probability'])}".rstrip()
        for one in best
    ]
    return "\n".join(lines)


def timeline(found: Sequence[Span], classes: Sequence[str], rate: float) -> str:
    """A line for each span with its class, and below it a row of marks for each class that leads somewhere."""
    leaders = [int(span.probabilities.argmax()) for span in found]
    width = max(len(classes[leader]) for leader in leaders)
    lines = [
        f"{_clock(span.start / rate):>9} -{_clock(span.end / rate):>9}  "
        f"{classes[leader]:<{width}} {100 * float(span.probabilities[leader]):7.2f} %"
        for span, leader in zip(found, leaders, strict=True)
    ]
    columns = min(len(found), _TIMELINE)
    edges = [column * len(found) // columns for column in range(columns + 1)]
    lines.append("")
    for leader in dict.fromkeys(leaders):
        marks = ("█" if leader in leaders[a:b] else "·" for a, b in itertools.pairwise(edges))
        lines.append(f"  {classes[leader]:<{width}}  {''.join(marks)}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{seconds:04.1f}"


def _warn(text: str) -> None:
    tqdm.write(f"warning: {text}", file=sys.stderr)


def _warn_of_a_short(video: Path, frames: int, announced: int, loaded: Predictor) -> None:
    lost = f", though the file announces {announced}" if announced > frames else ""
    _warn(f"{video} has only {frames} of the {loaded.span} frames of a clip{lost}: the last is repeated")


# ---- The three kinds of input ---------------------------------------------------------------------------------------


def predict_video(video: Path, loaded: Predictor, options: argparse.Namespace) -> str:
    """The whole video; returns what is printed."""
    frames = count_frames(video)
    if frames < loaded.span:
        with open_video(video) as capture:
            _warn_of_a_short(video, frames, announced_frames(capture), loaded)
    views = loaded.views(video, frames)
    best = top(loaded.probabilities(views).mean(0), loaded.classes, options.top)
    if options.json:
        return json.dumps({"video": str(video), "frames": frames, "views": len(views), "top": best})
    return f"{video}  ({frames} frames, {len(views)} {'view' if len(views) == 1 else 'views'})\n{table(best)}\n"


def predict_windows(video: Path, loaded: Predictor, options: argparse.Namespace) -> str:
    """Windows along a video; returns what is printed."""
    with open_video(video) as capture:
        rate, length, stride = _pace(capture, loaded, options)
        announced = announced_frames(capture)
        frames = tqdm(read_frames(capture), total=announced or None, unit="frame", leave=False, disable=None)
        found = list(spans(frames, loaded, length, stride))
    if not found or found[-1].end < 2:
        raise DataError(f"the video {video} has {found[-1].end if found else 0} frames: motion takes two")
    if found[-1].end < loaded.span <= length:
        _warn_of_a_short(video, found[-1].end, announced, loaded)
    if options.json:
        windows = [
            {
                "start": round(span.start / rate, 3),
                "end": round(span.end / rate, 3),
                "top": top(span.probabilities, loaded.classes, options.top),
            }
            for span in found
        ]
        return json.dumps({"video": str(video), "frames": found[-1].end, "rate": round(rate, 3), "windows": windows})
    head = f"{video}  ({found[-1].end} frames, windows of {length / rate:.3g} s, {stride / rate:.3g} s apart)"
    return f"{head}\n{timeline(found, loaded.classes, rate)}\n"


def watch_camera(loaded: Predictor, options: argparse.Namespace) -> None:
    """Prints what the last frames of a camera show, until it or the user ends."""
    capture = cv2.VideoCapture(options.camera)
    try:
        if not capture.isOpened():
            raise UserError(f"there is no camera {options.camera}, or it is in use")
        _, length, stride = _pace(capture, loaded, options)
        for span in spans(read_frames(capture), loaded, length, stride):
            best = top(span.probabilities, loaded.classes, options.top)
            now = time.strftime("%H:%M:%S")
            line = f"{now}  {100 * best[0]['probability']:6.2f} %  {best[0]['class']}"
            print(json.dumps({"time": now, "top": best}) if options.json else line, flush=True)
        raise UserError(f"camera {options.camera} gives no more pictures")
    finally:
        capture.release()


def _pace(capture: cv2.VideoCapture, loaded: Predictor, options: argparse.Namespace) -> tuple[float, int, int]:
    """Frames a second, frames of a window, and frames from one window to the next."""
    rate = frame_rate(capture)
    length = max(round(options.window * rate), 2) if options.window else loaded.span
    if length < loaded.span:
        _warn(f"a window has only {length} of the {loaded.span} frames of a clip: the last is repeated")
    seconds = options.stride or (1.0 if options.camera is not None else options.window / 2)
    return rate, length, max(round(seconds * rate), 1)


# ---- The command ----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we say in one line what cannot be opened
    try:
        videos = find_videos(options.videos)
        loaded = sifa.load(options.checkpoint, device=options.device, num_clips=options.clips, num_crops=options.crops)
        if options.camera is not None:
            watch_camera(loaded, options)
        return predict_all(videos, loaded, options)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0 if options.camera is not None else 130


def predict_all(videos: Sequence[Path], loaded: Predictor, options: argparse.Namespace) -> int:
    """Prints what each video shows; returns 1 if one could not be predicted, else 0."""
    failed = 0
    predict = predict_windows if options.window else predict_video
    for video in tqdm(videos, unit="video", disable=None if len(videos) > 1 else True):
        try:
            if video.is_dir():
                raise DataError(_nothing_in(video))
            tqdm.write(predict(video, loaded, options))
        except DataError as error:
            failed += 1
            message = " ".join(str(error).split())
            tqdm.write(f"error: {message}", file=sys.stderr)
            if options.json:
                tqdm.write(json.dumps({"video": str(video), "error": message}))
    return 1 if failed else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="files, folders and patterns like 'a/**/*.mp4'")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of train_val_3d.py")
    parser.add_argument("--camera", type=int, metavar="N", help="look through camera N in place of videos")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="cut videos into windows (camera: its memory)")
    parser.add_argument(
        "--stride", type=float, metavar="SECONDS", help="from one window to the next (default: half; camera: 1)"
    )
    parser.add_argument("--clips", type=int, metavar="N", help="of a video, or window (default: as in validation)")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="of a clip (default: as in validation)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="an object a line in place of tables")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    if options.camera is None and not options.videos:
        parser.error("give videos, or --camera N")
    if options.camera is not None and options.videos:
        parser.error("give videos or --camera N, not both")
    if options.stride is not None and options.window is None and options.camera is None:
        parser.error("--stride goes with --window or --camera")
    for name in ("clips", "top"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    for name in ("window", "stride"):
        # A window's frames are held in memory; this refuses nan, too.
        if (value := getattr(options, name)) is not None and not 0 < value <= _LONGEST:
            parser.error(f"--{name} must be above 0 and at most {_LONGEST} seconds, got {value:g}")
    return options


if __name__ == "__main__":
    sys.exit(main())
