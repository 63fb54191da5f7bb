"""Which frames of a video make a clip: the release's rule, for training and for test.

A video of num_frames is cut into num_segments segments of D = num_frames // num_segments frames. From every segment
come clip_length frames, num_steps apart, which span L = clip_length * num_steps frames. The name `1x16x1` of a
setting means num_segments x clip_length x num_steps. Positions are 0-based frame indices.
"""

import torch


def train_positions(
    num_frames: int,
    *,
    num_segments: int,
    clip_length: int,
    num_steps: int,
    generator: torch.Generator | None = None,
) -> list[int]:
    """num_segments * clip_length positions, starting in every segment at an offset drawn uniformly from 0..D-L.

    The offset is drawn for each segment on its own, from `generator` or torch's global one. A segment shorter than L
    starts at 0 and, where it ends too early, repeats its last frame.
    """
    room = _room(num_frames, num_segments, clip_length, num_steps)
    starts = torch.randint(room + 1, (num_segments,), generator=generator).tolist()
    return _positions(num_frames, starts, clip_length, num_steps)


def test_positions(
    num_frames: int,
    *,
    num_segments: int,
    clip_length: int,
    num_steps: int,
    clip: int = 0,  # noqa: PT028 (no test)
    num_clips: int = 1,  # noqa: PT028
) -> list[int]:
    """num_segments * clip_length positions of test clip `clip` of `num_clips`: int((D - L) * clip / num_clips) on.

    This is the release's rule, and it leans to the front: the division is by the number of clips, so the last clip
    ends before the video does, and a single clip starts at the segment's first frame and not in its middle. A
    segment that is too short repeats its last frame. Raises ValueError unless 0 <= clip < num_clips.
    """
    if not 0 <= clip < num_clips:
        raise ValueError(f"clip must be in 0..{num_clips - 1} (num_clips is {num_clips}), got {clip}")
    start = _room(num_frames, num_segments, clip_length, num_steps) * clip // num_clips
    return _positions(num_frames, [start] * num_segments, clip_length, num_steps)


# pytest would take the name for a test wherever it is imported.
test_positions.__test__ = False  # type: ignore[attr-defined]


def _room(num_frames: int, num_segments: int, clip_length: int, num_steps: int) -> int:
    """D - L, the last offset at which a clip still fits; 0 where none does."""
    for name, value in (
        ("num_frames", num_frames),
        ("num_segments", num_segments),
        ("clip_length", clip_length),
        ("num_steps", num_steps),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return max(num_frames // num_segments - clip_length * num_steps, 0)


def _positions(num_frames: int, starts: list[int], clip_length: int, num_steps: int) -> list[int]:
    """Frames from every segment's start on, the last frame of the segment in place of those beyond it.

    With more segments than frames (D = 0) a segment is one frame long, and the video's last frame is repeated.
    """
    length = max(num_frames // len(starts), 1)
    return [
        min(segment * length + min(start + step * num_steps, length - 1), num_frames - 1)
        for segment, start in enumerate(starts)
        for step in range(clip_length)
    ]
