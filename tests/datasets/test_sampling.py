"""Clip positions against values worked out by hand from the release's rule."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch

from datasets import test_positions as positions_for_test
from datasets import train_positions


@pytest.mark.parametrize(
    ("num_frames", "segments", "length", "steps", "clip", "clips", "expected"),
    [
        # One segment: D = 10, L = 4, D - L = 6; starts 0, int(6 / 3) = 2, int(12 / 3) = 4.
        (10, 1, 4, 1, 0, 1, [0, 1, 2, 3]),
        (10, 1, 4, 1, 0, 3, [0, 1, 2, 3]),
        (10, 1, 4, 1, 1, 3, [2, 3, 4, 5]),
        (10, 1, 4, 1, 2, 3, [4, 5, 6, 7]),
        # D = 11, L = 2 * 3 = 6, D - L = 5: starts int(5 / 2) = 2.
        (11, 1, 2, 3, 1, 2, [2, 5]),
        # Two segments of D = 10 // 2 = 5, L = 2, start int(3 / 2) = 1 in both.
        (10, 2, 2, 1, 1, 2, [1, 2, 6, 7]),
        # Frames 0..4 and 5..10, L = 2: starts int(3 / 2) = 1 and int(4 / 2) = 2.
        (11, 2, 2, 1, 1, 2, [1, 2, 7, 8]),
        # Too short: D = 3 < L = 5.
        (3, 1, 5, 1, 0, 1, [0, 1, 2, 2, 2]),
        (3, 1, 5, 1, 4, 5, [0, 1, 2, 2, 2]),
        (1, 1, 3, 2, 0, 1, [0, 0, 0]),
        # Segments too short, D = 2 < L = 3: each repeats its own last frame and keeps out of the next.
        (4, 2, 3, 1, 0, 1, [0, 1, 1, 2, 3, 3]),
        # Frames 0..1 and 2..4: only the first is too short.
        (5, 2, 3, 1, 0, 1, [0, 1, 1, 2, 3, 4]),
        # More segments than frames: the whole video, some frames twice.
        (3, 5, 1, 1, 0, 1, [0, 0, 1, 1, 2]),
        (3, 5, 2, 1, 1, 2, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]),
        # The frames fit (last position 4) although L = 6 > D = 5 leaves no room to move.
        (5, 1, 3, 2, 1, 2, [0, 2, 4]),
    ],
)
def test_test_positions_by_hand(
    num_frames: int, segments: int, length: int, steps: int, clip: int, clips: int, expected: list[int]
) -> None:
    positions = positions_for_test(
        num_frames, num_segments=segments, clip_length=length, num_steps=steps, clip=clip, num_clips=clips
    )
    assert positions == expected


def test_training_offsets_are_uniform_and_reach_both_ends() -> None:
    # D = 12 // 2 = 6, L = 2 * 2 = 4: offsets 0, 1, 2 in each segment, independently.
    generator = torch.Generator().manual_seed(0)
    counts: dict[tuple[int, int], int] = {}
    for _ in range(900):
        a, b, c, d = train_positions(12, num_segments=2, clip_length=2, num_steps=2, generator=generator)
        assert (b - a, d - c) == (2, 2)
        counts[a, c - 6] = counts.get((a, c - 6), 0) + 1
    assert sorted(counts) == [(i, j) for i in range(3) for j in range(3)]
    assert min(counts.values()) > 60, counts  # 100 expected, deviation 9.4


def test_segments_cover_the_whole_video() -> None:
    """Frames drawn one a segment keep their order; in the end each was drawn, and no other."""
    generator = torch.Generator().manual_seed(0)
    for frames, segments in ((60, 32), (127, 64), (65, 64), (40, 16), (7, 16)):
        sampling: dict[str, Any] = {"num_segments": segments, "clip_length": 1, "num_steps": 1}
        drawn = [train_positions(frames, **sampling, generator=generator) for _ in range(60)]
        assert all(positions == sorted(positions) for positions in drawn)
        assert {position for positions in drawn for position in positions} == set(range(frames)), (frames, segments)
        gaps = [b - a for a, b in pairwise(positions_for_test(frames, **sampling))]
        assert {frames // segments} <= set(gaps) <= {frames // segments, frames // segments + 1}


def test_each_segment_has_its_own_room() -> None:
    # Frames 0..4 and 5..10, L = 4: offsets 0..1 and 0..2.
    generator = torch.Generator().manual_seed(0)
    counts: Counter[tuple[int, int]] = Counter()
    for _ in range(600):
        a, *_, d, _ = train_positions(11, num_segments=2, clip_length=2, num_steps=2, generator=generator)
        counts[a, d - 5] += 1
    assert sorted(counts) == [(i, j) for i in range(2) for j in range(3)]
    assert min(counts.values()) > 60, counts  # 100 expected, deviation 9.1


def test_a_time_crop_is_a_part_of_any_place_and_length() -> None:
    generator = torch.Generator().manual_seed(0)
    sampling: dict[str, Any] = {"num_segments": 4, "clip_length": 1, "num_steps": 1, "generator": generator}
    drawn = [train_positions(40, **sampling, time_crop=(0.5, 1.0)) for _ in range(600)]
    assert all(positions == sorted(positions) for positions in drawn)
    assert {position for positions in drawn for position in positions} == set(range(40))
    # Half of 40 frames in 4 segments of 5: 11 frames from first to last at the least, 39 at the most.
    spans = [positions[-1] - positions[0] for positions in drawn]
    assert min(spans) >= 11
    assert min(spans) < 15
    assert max(spans) > 33
    fixed = [train_positions(40, **sampling, time_crop=(0.25, 0.25)) for _ in range(300)]
    assert {positions[-1] - positions[0] < 10 for positions in fixed} == {True}
    assert {positions[0] for positions in fixed} >= {0, 10, 20, 30}


def test_the_whole_as_time_crop_is_no_time_crop() -> None:
    for frames in (1, 2, 9, 33):
        sampling: dict[str, Any] = {"num_segments": 1, "clip_length": frames, "num_steps": 1}
        assert train_positions(frames, **sampling, time_crop=(1.0, 1.0)) == list(range(frames))
    assert train_positions(1, num_segments=3, clip_length=1, num_steps=1, time_crop=(0.1, 0.2)) == [0, 0, 0]


def test_training_positions_without_room() -> None:
    assert train_positions(4, num_segments=1, clip_length=4, num_steps=1) == [0, 1, 2, 3]
    assert train_positions(2, num_segments=1, clip_length=4, num_steps=1) == [0, 1, 1, 1]


def test_training_draws_from_the_global_generator_by_default() -> None:
    torch.manual_seed(1)
    first = train_positions(1000, num_segments=3, clip_length=4, num_steps=1)
    torch.manual_seed(1)
    assert train_positions(1000, num_segments=3, clip_length=4, num_steps=1) == first
    assert train_positions(1000, num_segments=3, clip_length=4, num_steps=1) != first


def test_refuses_what_is_no_clip() -> None:
    with pytest.raises(ValueError, match=r"clip must be in 0\.\.2 \(num_clips is 3\), got 3"):
        positions_for_test(9, num_segments=1, clip_length=4, num_steps=1, clip=3, num_clips=3)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        train_positions(9, num_segments=1, clip_length=4, num_steps=0)
    for shares in ((0.0, 1.0), (0.8, 0.5), (0.5, 1.1), (0.5,)):
        with pytest.raises(ValueError, match="time_crop must be two shares in increasing order within"):
            train_positions(9, num_segments=1, clip_length=4, num_steps=1, time_crop=shares)
