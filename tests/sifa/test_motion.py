"""Which moment of a video has the strongest motion, by its pixels."""

from pathlib import Path

import numpy as np

from sifa.motion import changes, is_still, strongest_pair
from tests.tiny import write_video


def walk(columns: list[int], height: int = 40, width: int = 48) -> np.ndarray:
    """uint8 (T, H, W, 3): a white square in these columns of a grey frame."""
    video = np.full((len(columns), height, width, 3), 60, np.uint8)
    for frame, left in zip(video, columns, strict=True):
        frame[12:24, left : left + 12] = 255
    return video


def test_the_pair_where_the_square_moves(tmp_path: Path) -> None:
    """It rests in frames 0 to 5, moves until frame 9, and rests again."""
    file = write_video(tmp_path / "v.avi", walk([8] * 6 + [12, 16, 20] + [24] * 5))
    changed = changes(file)
    assert len(changed) == 14
    assert (np.diff(changed)[5:9] > 1).all()
    assert not np.diff(changed)[[*range(5), *range(9, 13)]].any()
    shown = [[start, start + 4, start + 8] for start in range(6)]
    assert strongest_pair(changed, shown) == (1, 1), "frames 5 and 9 have all of the motion between them"


def test_a_cut_is_not_the_strongest_motion(tmp_path: Path) -> None:
    """Frames 0 to 7 move steadily; before frame 8 the picture becomes another one and then rests."""
    video = walk([8, 10, 12, 14, 16, 18, 20, 22] + [24] * 6)
    video[8:] = 255 - video[8:]
    changed = changes(write_video(tmp_path / "v.avi", video))
    clip, t = strongest_pair(changed, [[0, 5], [7, 12]])
    assert (clip, t) == (0, 0)


def test_of_equal_pairs_the_middle_one() -> None:
    assert strongest_pair(np.zeros(20), [[s, s + 4, s + 8, s + 12] for s in range(8)]) == (3, 1)
    assert strongest_pair(np.arange(3.0), [[0, 9]]) == (0, 0), "positions beyond what decodes"


def test_still_is_what_noise_alone_changes() -> None:
    random = np.random.default_rng(0)
    frame = walk([8])[0]
    noisy = np.clip(frame.astype(int) + random.integers(-9, 10, frame.shape), 0, 255).astype(np.uint8)
    assert is_still(frame, noisy)
    assert not is_still(frame, walk([12])[0])
    dark = frame // 20  # 3 grey levels, and 12 of the square
    assert is_still(dark, dark)
    assert not is_still(dark, walk([12])[0] // 20)
