"""Predictions for videos, or for windows of them, one after the other, as values for JSON and as text."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.errors import DataError, shown_name
from datasets.video_files import frame_rate, open_video
from sifa import video_stream
from sifa.prediction_text import table, timeline, top, top_of_windows
from sifa.predictor import Predictor

Result = tuple[dict[str, Any], str]  # for JSON and CSV; for people
Warn = Callable[[str], None]


def whole_videos(
    videos: Sequence[Path],
    predictor: Predictor,
    *,
    top_classes: int,
    warn: Warn,
    batch_size: int | None = None,
    workers: int | None = None,
) -> Iterator[tuple[Path, Result | DataError]]:
    """The predictions of videos, in their order.

    Args:
        videos: files.
        predictor: of the network.
        top_classes: how many classes a result names.
        warn: called with a sentence about a video that is shorter than a clip.
        batch_size, workers: see `Predictor.predict_many`.
    """
    predictions = predictor.predict_many(videos, batch_size=batch_size, workers=workers)
    for video, one in zip(videos, predictions, strict=True):
        if one.error is not None:
            if not isinstance(one.error, DataError):
                raise one.error
            yield video, one.error
            continue
        if one.frames < predictor.span:
            warn(video_stream.short_video(video, one.frames, predictor.span))
        best = top(one.probabilities, predictor.classes, top_classes)
        views = f"{one.views} {'view' if one.views == 1 else 'views'}"
        text = f"{shown_name(video)}  ({one.frames} frames, {views})\n{table(best)}\n"
        yield video, ({"video": str(video), "frames": one.frames, "views": one.views, "top": best}, text)


def windows_of_videos(
    videos: Sequence[Path],
    predictor: Predictor,
    *,
    top_classes: int,
    warn: Warn,
    window: float,
    stride: float | None,
) -> Iterator[tuple[Path, Result | DataError]]:
    """The predictions for the windows of videos, in their order.

    Args:
        videos, predictor, top_classes, warn: see `whole_videos`.
        window, stride: see `frames_of_window`.
    """
    for video in videos:
        try:
            video_stream.check_video(video)
            yield video, _windows_of(video, predictor, top_classes, warn, window, stride)
        except DataError as error:
            yield video, error


def _windows_of(
    video: Path, predictor: Predictor, top_classes: int, warn: Warn, window: float, stride: float | None
) -> Result:
    with open_video(video) as capture:
        rate = frame_rate(capture)
        length, step = frames_of_window(rate, predictor, window, stride or window / 2, warn)
        total = video_stream.announced_frames(capture) or None
        frames = tqdm(video_stream.read_frames(capture), total=total, unit="frame", leave=False, disable=None)
        windows = list(predictor.predict_windows(frames, window=length, stride=step))
    count = windows[-1].end if windows else 0
    if count < 2:
        raise DataError(f"the video {video} has {count} frames: motion takes two")
    if count < predictor.span <= length:
        warn(video_stream.short_video(video, count, predictor.span))
    tops = top_of_windows(windows, predictor.classes, top_classes, rate)
    head = f"{shown_name(video)}  ({count} frames, windows of {length / rate:.3g} s, {step / rate:.3g} s apart)"
    text = f"{head}\n{timeline(windows, predictor.classes, rate)}\n"
    return {"video": str(video), "frames": count, "rate": round(rate, 3), "windows": tops}, text


def frames_of_window(
    rate: float, predictor: Predictor, window: float | None, stride: float, warn: Warn
) -> tuple[int, int]:
    """The frames of a window, and from the start of one window to the next.

    Args:
        rate: frames per second.
        predictor: of the network.
        window: its length in seconds; None: as many frames as a clip spans.
        stride: seconds from the start of one window to the next.
        warn: called with a sentence if a window is shorter than a clip.
    """
    length = max(round(window * rate), 2) if window else predictor.span
    if length < predictor.span:
        warn(f"a window has only {length} of the {predictor.span} frames of a clip: the last is repeated")
    return length, max(round(stride * rate), 1)
