"""Which frames of a video make a clip: the release's rule, for training and for test.

A video of num_frames is cut into num_segments segments: segment i is the frames i * num_frames // num_segments up to,
and without, (i + 1) * num_frames // num_segments. From every segment come clip_length frames, num_steps apart, which
span L = clip_length * num_steps frames. A segment's room is its length less L, the last offset at which a clip still
fits; it is 0 where none does. The name `1x16x1` of a setting means num_segments x clip_length x num_steps. Positions
are 0-based frame indices.

In the release every segment has num_frames // num_segments frames. Where that leaves a remainder, the end of the video
is never seen (63 of 127 frames in 64 segments), and segments of a single frame leave training no choice. Ours have one
frame more here and there, and cover the video.
"""

from itertools import pairwise

import torch


def train_positions(
    num_frames: int,
    *,
    num_segments: int,
    clip_length: int,
    num_steps: int,
    generator: torch.Generator | None = None,
) -> list[int]:
    """num_segments * clip_length positions, starting in every segment at an offset drawn uniformly from 0..room.

    The offset is drawn for each segment on its own, from `generator` or torch's global one. A segment shorter than L
    starts at 0 and, where it ends too early, repeats its last frame.
    """
    segments = _segments(num_frames, num_segments, clip_length, num_steps)
    starts = [
        int(torch.randint(_room(segment, clip_length, num_steps) + 1, (), generator=generator)) for segment in segments
    ]
    return _positions(segments, starts, clip_length, num_steps)


def test_positions(
    num_frames: int,
    *,
    num_segments: int,
    clip_length: int,
    num_steps: int,
    clip: int = 0,  # noqa: PT028 (no test)
    num_clips: int = 1,  # noqa: PT028
) -> list[int]:
    """num_segments * clip_length positions of test clip `clip` of `num_clips`: room * clip // num_clips on.

    This is the release's rule, and it leans to the front: the division is by the number of clips, so the last clip
    ends before the video does, and a single clip starts at the segment's first frame and not in its middle. A
    segment that is too short repeats its last frame. Raises ValueError unless 0 <= clip < num_clips.
    """
    if not 0 <= clip < num_clips:
        raise ValueError(f"clip must be in 0..{num_clips - 1} (num_clips is {num_clips}), got {clip}")
    segments = _segments(num_frames, num_segments, clip_length, num_steps)
    starts = [_room(segment, clip_length, num_steps) * clip // num_clips for segment in segments]
    return _positions(segments, starts, clip_length, num_steps)


# pytest would take the name for a test wherever it is imported.
test_positions.__test__ = False  # type: ignore[attr-defined]


def _segments(num_frames: int, num_segments: int, clip_length: int, num_steps: int) -> list[range]:
    """The frames of every segment; with more segments than frames each is one, and some frames serve several."""
    for name, value in (
        ("num_frames", num_frames),
        ("num_segments", num_segments),
        ("clip_length", clip_length),
        ("num_steps", num_steps),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    firsts = [segment * num_frames // num_segments for segment in range(num_segments + 1)]
    return [range(first, max(end, first + 1)) for first, end in pairwise(firsts)]


def _room(segment: range, clip_length: int, num_steps: int) -> int:
    return max(len(segment) - clip_length * num_steps, 0)


def _positions(segments: list[range], starts: list[int], clip_length: int, num_steps: int) -> list[int]:
    """Frames from every segment's start on, the last frame of the segment in place of those beyond it."""
    return [
        segment[min(start + step * num_steps, len(segment) - 1)]
        for segment, start in zip(segments, starts, strict=True)
        for step in range(clip_length)
    ]
