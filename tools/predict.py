"""Classify videos with a checkpoint alone: it carries configuration and class names.

    python -m tools.predict VIDEO [VIDEO ...] --checkpoint FILE
    python -m tools.predict FOLDER 'clips/*.mp4' --checkpoint FILE --json
    python -m tools.predict LONG.mp4 --checkpoint FILE --window 2 --stride 1
    python -m tools.predict --camera 0 --checkpoint FILE

Views are those of the checkpoint's own validation unless --clips and --crops change them, and so are the scores.
--window cuts a video into windows of so many seconds and classifies each as a video of its own. --camera does the same
with the last seconds of a camera until Ctrl-C. --json prints one object per line: for each video, or each prediction of
the camera. Exit code: 0; 1 if a video could not be predicted (the others are); 2 for an error that stops everything.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import sifa
from common import cli
from common.errors import DataError, UserError, one_line, shown_name
from datasets.video_files import frame_rate, open_video
from sifa import video_stream
from sifa.prediction_text import table, timeline, top, top_of_windows
from sifa.predictor import Predictor, count_frames
from sifa.windows import predict_windows

_LONGEST = 24 * 60 * 60  # seconds of a window, whose crops are all in memory


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the command prints its own error
    return cli.run(lambda: predict(options))


def predict(options: argparse.Namespace) -> int:
    """Prints a prediction for each video, or for the camera; returns 1 if a video could not be predicted, else 0."""
    videos = video_stream.find_videos(options.videos, _warn)
    predictor = sifa.load(options.checkpoint, device=options.device, num_clips=options.clips, num_crops=options.crops)
    if options.camera is not None:
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            watch_camera(predictor, options)
        return 0
    _say_trained_on(predictor, options)
    failed = 0
    describe = describe_windows if options.window else describe_video
    for video in tqdm(videos, unit="video", disable=None if len(videos) > 1 else True):
        try:
            if video.is_dir():
                raise DataError(video_stream.no_video_in(video))
            video_stream.check_video(video)
            tqdm.write(describe(video, predictor, options))
        except DataError as error:
            failed += 1
            message = one_line(error)
            tqdm.write(f"error: {message}", file=sys.stderr)
            if options.json:
                tqdm.write(json.dumps({"video": str(video), "error": message}))
    return 1 if failed else 0


def describe_video(video: Path, predictor: Predictor, options: argparse.Namespace) -> str:
    """The prediction for a whole video as text."""
    frames = count_frames(video)
    if frames < predictor.span:
        _warn(video_stream.short_video(video, frames, predictor.span))
    views = predictor.views(video, frames)
    best = top(predictor.probabilities(views).mean(0), predictor.classes, options.top)
    if options.json:
        return json.dumps({"video": str(video), "frames": frames, "views": len(views), "top": best})
    views_text = f"{len(views)} {'view' if len(views) == 1 else 'views'}"
    return f"{shown_name(video)}  ({frames} frames, {views_text})\n{table(best)}\n"


def describe_windows(video: Path, predictor: Predictor, options: argparse.Namespace) -> str:
    """The predictions for the windows of a video as text."""
    with open_video(video) as capture:
        rate, length, stride = _timing(capture, predictor, options)
        total = video_stream.announced_frames(capture) or None
        frames = tqdm(video_stream.read_frames(capture), total=total, unit="frame", leave=False, disable=None)
        windows = list(predict_windows(frames, predictor, length, stride))
    count = windows[-1].end if windows else 0
    if count < 2:
        raise DataError(f"the video {video} has {count} frames: motion takes two")
    if count < predictor.span <= length:
        _warn(video_stream.short_video(video, count, predictor.span))
    if options.json:
        tops = top_of_windows(windows, predictor.classes, options.top, rate)
        return json.dumps({"video": str(video), "frames": count, "rate": round(rate, 3), "windows": tops})
    head = f"{shown_name(video)}  ({count} frames, windows of {length / rate:.3g} s, {stride / rate:.3g} s apart)"
    return f"{head}\n{timeline(windows, predictor.classes, rate)}\n"


def watch_camera(predictor: Predictor, options: argparse.Namespace) -> None:
    """Prints a prediction for each window of a camera until it has no more frames, which is an error."""
    with video_stream.open_camera(options.camera) as capture:
        _say_trained_on(predictor, options)
        _, length, stride = _timing(capture, predictor, options)
        for window in predict_windows(video_stream.read_frames(capture), predictor, length, stride):
            now, best = time.strftime("%H:%M:%S"), top(window.probabilities, predictor.classes, options.top)
            line = f"{now}  {100 * best[0]['probability']:6.2f} %  {one_line(best[0]['class'])}"
            print(json.dumps({"time": now, "top": best}) if options.json else line, flush=True)
    raise UserError(f"camera {options.camera} gives no more pictures")


def _say_trained_on(predictor: Predictor, options: argparse.Namespace) -> None:
    if not options.json:
        print(f"trained on {one_line(predictor.trained_on)}", flush=True)


def _warn(text: str) -> None:
    tqdm.write(f"warning: {one_line(text)}", file=sys.stderr)


def _timing(capture: cv2.VideoCapture, predictor: Predictor, options: argparse.Namespace) -> tuple[float, int, int]:
    """Frames per second, frames of a window, and frames from the start of one window to the next."""
    rate = frame_rate(capture)
    length = max(round(options.window * rate), 2) if options.window else predictor.span
    if length < predictor.span:
        _warn(f"a window has only {length} of the {predictor.span} frames of a clip: the last is repeated")
    seconds = options.stride or (1.0 if options.camera is not None else options.window / 2)
    return rate, length, max(round(seconds * rate), 1)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.predict", __doc__)
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="files, folders and patterns like 'a/**/*.mp4'")
    parser.add_argument("--checkpoint", type=Path, required=True, help="file of train_val_3d.py")
    parser.add_argument("--camera", type=int, metavar="N", help="camera N instead of videos")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="length of a window (camera: default a clip)")
    parser.add_argument("--stride", type=float, metavar="SECONDS", help="between windows (default: half; camera: 1)")
    parser.add_argument("--clips", type=int, metavar="N", help="of a video or window (default: as in validation)")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="of a clip (default: as in validation)")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to print (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one object per line instead of tables")
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
        if (value := getattr(options, name)) is not None and not 0 < value <= _LONGEST:  # nan, too
            parser.error(f"--{name} must be above 0 and at most {_LONGEST} seconds, got {value:g}")
    return options


if __name__ == "__main__":
    sys.exit(main())
