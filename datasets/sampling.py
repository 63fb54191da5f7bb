"""Which frames of a video make a clip: the release's rule, for training and for test.

A video is cut into num_segments segments. Segment i is the frames from i * num_frames // num_segments up to, but not
including, (i + 1) * num_frames // num_segments. Each segment gives clip_length frames with a distance of num_steps, so
that they span L = clip_length * num_steps frames. The largest offset of a segment is its length minus L, or 0 if the
segment is shorter than L. A setting named `1x16x1` means num_segments x clip_length x num_steps. Positions are 0-based
frame indices. In training the segments may divide a random part of the video instead (time_crop), which the release
does not have.

In the release every segment has num_frames // num_segments frames. If the division leaves a remainder, the release
never reads the end of the video (63 of 127 frames for 64 segments), and segments of a single frame allow no random
offset in training. Here some segments have one frame more, so that the segments cover the whole video.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch


def train_positions(
    num_frames: int,
    *,
    num_segments: int,
    clip_length: int,
    num_steps: int,
    time_crop: Sequence[float] | None = None,
    generator: torch.Generator | None = None,
) -> list[int]:
    """Draws the positions of a training clip: each segment starts at its own offset, uniform in 0..largest offset.

    A segment that is too short starts at offset 0 and repeats its last frame.

    Args:
        num_frames: of the video.
        num_segments: segments of the video.
        clip_length: frames from each segment.
        num_steps: distance of these frames.
        time_crop: (low, high): the segments divide a part of the video, whose share of its frames is uniform in
            low..high and which lies anywhere. So they see the movement begin earlier or later, and faster or slower.
            None: the whole video.
        generator: of the random numbers; None: torch's global one.

    Returns:
        num_segments * clip_length positions.

    Raises:
        ValueError: a number is below 1, or time_crop is no range of shares.
    """
    start, length = _draw_part(num_frames, time_crop, generator) if time_crop is not None else (0, num_frames)
    segments = _segments(length, num_segments, clip_length, num_steps)
    offsets = [
        int(torch.randint(_largest_offset(segment, clip_length, num_steps) + 1, (), generator=generator))
        for segment in segments
    ]
    return [start + position for position in _positions(segments, offsets, clip_length, num_steps)]


def test_positions(
    num_frames: int,
    *,
    num_segments: int,
    clip_length: int,
    num_steps: int,
    clip: int = 0,  # noqa: PT028 (no test)
    num_clips: int = 1,  # noqa: PT028
) -> list[int]:
    """The positions of one of several test clips: each segment starts at offset largest offset * clip // num_clips.

    This is the release's rule. It prefers the front of the video, because it divides by the number of clips: the last
    clip ends before the video does, and a single clip starts at the first frame of its segment and not in the middle.
    A segment that is too short starts at offset 0 and repeats its last frame.

    Args:
        num_frames: of the video.
        num_segments: segments of the video.
        clip_length: frames from each segment.
        num_steps: distance of these frames.
        clip: number of the clip, 0-based.
        num_clips: clips of the video.

    Returns:
        num_segments * clip_length positions.

    Raises:
        ValueError: clip is not in 0..num_clips-1, or another number is below 1.
    """
    if not 0 <= clip < num_clips:
        raise ValueError(f"clip must be in 0..{num_clips - 1} (num_clips is {num_clips}), got {clip}")
    segments = _segments(num_frames, num_segments, clip_length, num_steps)
    offsets = [_largest_offset(segment, clip_length, num_steps) * clip // num_clips for segment in segments]
    return _positions(segments, offsets, clip_length, num_steps)


# pytest would take the name for a test wherever it is imported.
test_positions.__test__ = False  # type: ignore[attr-defined]


def check_time_crop(time_crop: Sequence[float]) -> None:
    """Checks the range of the shares of a video that a clip is drawn from.

    Args:
        time_crop: (low, high).

    Raises:
        ValueError: they are no two shares in increasing order within (0, 1].
    """
    if len(time_crop) != 2 or not 0 < time_crop[0] <= time_crop[1] <= 1:
        raise ValueError(f"time_crop must be two shares in increasing order within (0, 1], got {list(time_crop)}")


def check_at_least_one(**values: int) -> None:
    """Checks arguments that count something.

    Args:
        **values: by the name of the argument.

    Raises:
        ValueError: a value is below 1.
    """
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _draw_part(num_frames: int, time_crop: Sequence[float], generator: torch.Generator | None) -> tuple[int, int]:
    """The first frame and the length of a random part of a video, of one frame at least."""
    check_time_crop(time_crop)
    low, high = time_crop
    share = low + (high - low) * torch.rand((), generator=generator).item()
    length = min(max(round(share * num_frames), 1), num_frames)
    return int(torch.randint(num_frames - length + 1, (), generator=generator)), length


def _segments(num_frames: int, num_segments: int, clip_length: int, num_steps: int) -> list[range]:
    """The frames of each segment. With more segments than frames, each has one frame, and some share a frame."""
    check_at_least_one(num_frames=num_frames, num_segments=num_segments, clip_length=clip_length, num_steps=num_steps)
    starts = [segment * num_frames // num_segments for segment in range(num_segments + 1)]
    return [range(start, max(end, start + 1)) for start, end in pairwise(starts)]


def _largest_offset(segment: range, clip_length: int, num_steps: int) -> int:
    return max(len(segment) - clip_length * num_steps, 0)


def _positions(segments: list[range], offsets: list[int], clip_length: int, num_steps: int) -> list[int]:
    """The frames of each segment from its offset on; the last frame of the segment replaces those beyond its end."""
    return [
        segment[min(offset + step * num_steps, len(segment) - 1)]
        for segment, offset in zip(segments, offsets, strict=True)
        for step in range(clip_length)
    ]
