"""Classify videos with a checkpoint alone: it carries configuration and class names.

    python -m tools.predict VIDEO [VIDEO ...] --checkpoint FILE
    python -m tools.predict FOLDER 'clips/*.mp4' --checkpoint FILE --json
    python -m tools.predict LONG.mp4 --checkpoint FILE --window 2 --stride 1
    python -m tools.predict --camera 0 --checkpoint FILE

Views and scores are those of the checkpoint's own validation, if --clips and --crops do not change them. --window
classifies windows of so many seconds as videos of their own; --camera does so with a camera until Ctrl-C. --json and
--csv print a line for each result. Exit code: 0; 1 if a video could not be predicted (the others are); 2 for an error
that stops everything.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

import sifa
from common import cli
from common.errors import DataError, UserError, one_line
from datasets.video_files import frame_rate
from sifa import video_results, video_stream
from sifa.forms import FORMS
from sifa.prediction_text import CSV_COLUMNS, csv_lines, top

_LONGEST = 24 * 60 * 60  # seconds of a window, whose crops are all in memory


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the command prints its own error
    return cli.run(lambda: predict(options))


def predict(options: argparse.Namespace) -> int:
    """Prints a prediction for each video, or for the camera; returns 1 if a video could not be predicted, else 0."""
    videos = video_stream.find_videos(options.videos, _warn)
    views = {"num_clips": options.clips, "num_crops": options.crops}
    computing = {"device": options.device, "threads": options.threads, "form": options.form}
    predictor = sifa.load(options.checkpoint, **computing, **views)
    if predictor.form.report:
        print(predictor.form.report, file=sys.stderr, flush=True)
    if options.csv:
        print(",".join(CSV_COLUMNS))
    if options.camera is not None:
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            watch_camera(predictor, options)
        return 0
    _say_trained_on(predictor, options)
    shown = {"top_classes": options.top, "warn": _warn}
    if options.window:
        windows = {"window": options.window, "stride": options.stride}
        results = video_results.windows_of_videos(videos, predictor, **shown, **windows)
    else:
        batches = {"batch_size": options.batch, "workers": options.workers}
        results = video_results.whole_videos(videos, predictor, **shown, **batches)
    failed = 0
    for video, result in tqdm(results, total=len(videos), unit="video", disable=None if len(videos) > 1 else True):
        if isinstance(result, DataError):
            failed += 1
            message = video_stream.no_video_in(video) if video.is_dir() else one_line(result)
            tqdm.write(f"error: {message}", file=sys.stderr)
            result = {"video": str(video), "error": message}, ""
        record, text = result
        if line := _line(record, text, options):
            tqdm.write(line)
    return 1 if failed else 0


def watch_camera(predictor: sifa.Predictor, options: argparse.Namespace) -> None:
    """Prints a prediction for each window of a camera until it has no more frames, which is an error."""
    with video_stream.open_camera(options.camera) as capture:
        _say_trained_on(predictor, options)
        rate, stride = frame_rate(capture), options.stride or 1.0
        length, step = video_results.frames_of_window(rate, predictor, options.window, stride, _warn)
        for window in predictor.predict_windows(video_stream.read_frames(capture), window=length, stride=step):
            now, best = time.strftime("%H:%M:%S"), top(window.probabilities, predictor.classes, options.top)
            text = f"{now}  {100 * best[0]['probability']:6.2f} %  {one_line(best[0]['class'])}"
            print(_line({"time": now, "top": best}, text, options), flush=True)
    raise UserError(f"camera {options.camera} gives no more pictures")


def _line(record: dict[str, Any], text: str, options: argparse.Namespace) -> str:
    return json.dumps(record) if options.json else csv_lines(record) if options.csv else text


def _say_trained_on(predictor: sifa.Predictor, options: argparse.Namespace) -> None:
    if not options.json and not options.csv:
        print(f"trained on {one_line(predictor.trained_on)}", flush=True)


def _warn(text: str) -> None:
    tqdm.write(f"warning: {one_line(text)}", file=sys.stderr)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.predict", __doc__, usage="--checkpoint RUN [...] [VIDEO ...]")
    add = parser.add_argument
    add("videos", nargs="*", metavar="VIDEO", help="files, folders and patterns like 'a/**/*.mp4'")
    add("--checkpoint", type=Path, required=True, metavar="RUN", help="folder of a run, or its file")
    add("--camera", type=int, metavar="N", help="camera N instead of videos")
    add("--window", type=float, metavar="SECONDS", help="length of a window (camera: default a clip)")
    add("--stride", type=float, metavar="SECONDS", help="between windows (default: half; camera: 1)")
    add("--clips", type=int, metavar="N", help="of a video or window (default: as in validation)")
    add("--crops", type=int, choices=(1, 3), help="of a clip (default: as in validation)")
    add("--top", type=int, default=5, metavar="N", help="classes to print (default: %(default)s)")
    layout = parser.add_mutually_exclusive_group()
    layout.add_argument("--json", action="store_true", help="an object for each video")
    layout.add_argument("--csv", action="store_true", help="a row for each video, window and class")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s here)")
    add("--batch", type=int, metavar="N", help="views at once (default: by network and device)")
    add("--workers", type=int, metavar="N", help="threads that decode (default: one for each core)")
    add("--threads", type=int, metavar="N", help="of the network on the CPU (default: narrow 1, wide all)")
    add(
        "--form",
        choices=FORMS,
        default="eager",
        help="what computes; fastest measures all, for minutes (default: eager)",
    )
    options = parser.parse_args(argv)
    if options.camera is None and not options.videos:
        parser.error("give videos, or --camera N")
    if options.camera is not None and options.videos:
        parser.error("give videos or --camera N, not both")
    if options.stride is not None and options.window is None and options.camera is None:
        parser.error("--stride goes with --window or --camera")
    for name in ("clips", "top", "batch", "workers", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
    for name in ("window", "stride"):
        if (value := getattr(options, name)) is not None and not 0 < value <= _LONGEST:  # nan, too
            parser.error(f"--{name} must be above 0 and at most {_LONGEST} seconds, got {value:g}")
    return options


if __name__ == "__main__":
    sys.exit(main())
