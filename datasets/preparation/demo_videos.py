"""Small videos of eight kinds of motion, to train on where there is no data set.

No single frame tells the class. The state of a thing is four numbers in 0..1: its place across and down, its angle and
its size. All four start uniformly at random; the class says which of them changes over time, and in which direction,
modulo 1. A uniform number plus any other, modulo 1, is uniform: so in every frame of every class all four are uniform
and independent, and the direction of time is all that tells a class from its opposite. (Modulo 1, things leave at one
border and come in at the other, in every class, and a growing thing starts again as a small one.)
"""

from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common.errors import UserError
from datasets.processes import end_with_parent

# Which number of the state (0 across, 1 down, 2 angle, 3 size) changes, and its direction. Rows count downwards and
# angles clockwise, as in an image.
MOTIONS = {
    "grow": (3, 1),
    "move_down": (1, 1),
    "move_left": (0, -1),
    "move_right": (0, 1),
    "move_up": (1, -1),
    "rotate_clockwise": (2, 1),
    "rotate_counterclockwise": (2, -1),
    "shrink": (3, -1),
}
SPLITS = ("train", "val")
SPEED = (0.02, 0.04)  # of the state's changing number, a frame: 2 to 4 pixels of 96, or 7 to 14 degrees
RADIUS = (0.13, 0.36)  # of a thing, in widths of the frame; the logarithm is uniform
THINGS = (2, 4)  # in one video, the upper bound not included
NOISE = (2.0, 7.0)  # grey levels
FPS = 12
SPRITE = 96  # pixels of a thing's picture, which is then turned and scaled

Image = np.ndarray
Sprite = tuple[Image, Image]  # blue, green, red in 0..255 and opacity (thrice) in 0..1: float32 (SPRITE, SPRITE, 3)


def write_demo_videos(
    out_dir: Path, counts: Mapping[str, int], *, size: int, frames: int, seed: int, workers: int
) -> None:
    """Writes out_dir/SPLIT/CLASS/NUMBER.mp4, with a progress bar. The same seed gives the same videos.

    Args:
        out_dir: the folder of both splits.
        counts: videos of each class, by split.
        size: height and width in pixels, even.
        frames: of each video.
        seed: of all that is random.
        workers: processes.

    Raises:
        UserError: out_dir has other videos, for instance of an earlier call with more of them.
        OSError: a video cannot be written.
    """
    files = {
        out_dir / split / motion / f"{number:04d}.mp4": (split, motion, number)
        for split in SPLITS
        for motion in MOTIONS
        for number in range(counts[split])
    }
    _check_no_others(out_dir, files)
    for folder in dict.fromkeys(file.parent for file in files):
        folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write_video, size=size, frames=frames, seed=seed)
    tqdm.monitor_interval = 0  # no thread of the bar's own while processes are forked
    with ProcessPoolExecutor(min(workers, len(files)), initializer=_start_worker) as pool:
        for _ in tqdm(pool.map(write, files.items(), chunksize=4), total=len(files), unit="video", desc="draw"):
            pass


def _start_worker() -> None:
    cv2.setNumThreads(0)
    end_with_parent()


def _check_no_others(out_dir: Path, files: Container[Path]) -> None:
    """Raises UserError if out_dir has other videos, which an extraction would list. Unfinished videos are hidden."""
    for split in SPLITS:
        for file in sorted((out_dir / split).glob("*/[!.]*.mp4")):
            if file not in files:
                raise UserError(
                    f"OUT_DIR holds a video that is not of this run, {file}; remove it or give another folder"
                )


def _write_video(task: tuple[Path, tuple[str, str, int]], *, size: int, frames: int, seed: int) -> None:
    file, (split, motion, number) = task
    # Every video has a random stream of its own: training and validation share nothing, and more videos change none.
    rng = np.random.default_rng([seed, SPLITS.index(split), list(MOTIONS).index(motion), number])
    save_video(file, draw_video(motion, frames=frames, size=size, rng=rng))


def save_video(file: Path, pictures: Sequence[Image]) -> None:
    """Writes an MPEG-4 video, completely or not at all: uint8 pictures (size, size, 3), BGR, size even.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = file.with_name(f".{file.name}")
    writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter.fourcc(*"mp4v"), FPS, pictures[0].shape[1::-1])
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write the video {file}")
    for picture in pictures:
        writer.write(picture)
    writer.release()
    unfinished.replace(file)


def draw_video(motion: str, *, frames: int, size: int, rng: np.random.Generator) -> list[Image]:
    """One video: `frames` uint8 pictures (size, size, 3), BGR, of things in the motion of that name."""
    background = _texture(size, rng, low=70, high=185)
    states = [draw_states(motion, frames=frames, rng=rng) for _ in range(rng.integers(*THINGS))]
    sprites = [_sprite(rng) for _ in states]
    noise = rng.uniform(*NOISE)
    pictures = []
    for index in range(frames):
        picture = background.copy()
        for state, sprite in zip(states, sprites, strict=True):
            _paint(picture, sprite, state[index])
        grain = rng.standard_normal(picture.shape, dtype=np.float32)
        pictures.append(cv2.scaleAdd(grain, noise, picture).clip(0, 255).round().astype(np.uint8))
    return pictures


def draw_states(motion: str, *, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The states of one thing, (frames, 4) in 0..1: place across, place down, angle, size."""
    which, direction = MOTIONS[motion]
    states = np.tile(rng.uniform(size=4), (frames, 1))
    states[:, which] += direction * rng.uniform(*SPEED) * np.arange(frames)
    return states % 1.0


def _paint(picture: Image, sprite: Sprite, state: np.ndarray) -> None:
    """Paints a sprite onto a float picture (size, size, 3); what leaves at one border enters at the other."""
    size = picture.shape[0]
    radius = size * RADIUS[0] * (RADIUS[1] / RADIUS[0]) ** state[3]
    turn = cv2.getRotationMatrix2D((SPRITE / 2, SPRITE / 2), -360 * state[2], 2 * radius / SPRITE)
    reach = radius * 2**0.5  # the sprite's corners
    for across in (-size, 0, size):
        for down in (-size, 0, size):
            x, y = state[0] * size + across, state[1] * size + down
            left, right, top, bottom = (
                min(max(int(edge), 0), size) for edge in (x - reach, x + reach + 1, y - reach, y + reach + 1)
            )
            if left == right or top == bottom:
                continue
            shift = turn + np.array([[0, 0, x - SPRITE / 2 - left], [0, 0, y - SPRITE / 2 - top]])
            # Only the part of the picture that the sprite can reach: most things are small.
            colour, opacity = (cv2.warpAffine(layer, shift, (right - left, bottom - top)) for layer in sprite)
            part = picture[top:bottom, left:right]
            part += (colour - part) * opacity


def _sprite(rng: np.random.Generator) -> Sprite:
    """A thing without any symmetry: its colours and its opacity.

    A blob with one long side in a dark and a bright colour, which meet along a line off its middle, with spots.
    """
    corners = 9
    angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * (2 * np.pi / corners)
    lengths = rng.uniform(0.5, 0.75, corners)
    lengths[:2] = 0.95  # one long side: a thing shows which way it points
    centre = SPRITE / 2
    outline = centre + centre * np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]
    mask = np.zeros((SPRITE, SPRITE), dtype=np.uint8)
    cv2.fillPoly(mask, [outline.round().astype(np.int32)], 255, lineType=cv2.LINE_AA)

    dark, bright = rng.uniform(0, 70, 3), rng.uniform(185, 255, 3)
    dark, bright = (dark, bright) if rng.uniform() < 0.5 else (bright, dark)
    rows, columns = np.mgrid[:SPRITE, :SPRITE] / SPRITE - 0.5
    direction = rng.uniform(0, 2 * np.pi)
    second = rows * np.sin(direction) + columns * np.cos(direction) > rng.uniform(0.0, 0.12)
    colours = np.where(second[..., None], bright, dark).astype(np.float32)
    for _ in range(rng.integers(1, 4)):
        place = tuple(int(value) for value in rng.uniform(0.3, 0.7, 2) * SPRITE)
        cv2.circle(colours, place, int(rng.integers(5, 11)), rng.uniform(0, 255, 3).tolist(), -1, cv2.LINE_AA)
    opacity = cv2.merge([mask.astype(np.float32) / 255] * 3)
    return cv2.GaussianBlur(colours, (3, 3), 0), cv2.GaussianBlur(opacity, (3, 3), 0)


def _texture(size: int, rng: np.random.Generator, low: float, high: float) -> Image:
    """A soft random texture between two grey levels: float32 (size, size, 3)."""
    texture = np.zeros((size, size, 3), dtype=np.float32)
    for cells in (2, 4, 12):
        coarse = rng.uniform(size=(cells, cells, 3)).astype(np.float32)
        texture += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC) * rng.uniform(0.3, 1.0)
    texture -= texture.min()
    return low + texture / texture.max() * (high - low)
