"""Draw videos of richer motion than the demo's, to train a network on before it sees a few hundred real videos.

    python -m benchmarks.drawn_motion OUT_DIR [--videos 250] [--size 72] [--frames 24] [--seed 0]

OUT_DIR/CLASS/NUMBER.mp4, 18 classes of so many videos. In each one thing follows its class; half of the videos have
another thing, which moves anyhow. A class says what of the thing changes, its height in the picture, its place across,
its size or its opening (short and wide to tall), and how: up, down, up and back, down and back, or up and back twice.
So the order of time, the direction and the speed tell classes apart. Left and right are not told: a mirrored video has
the same class.

The background has a texture, under a camera that drifts, zooms and turns. A bar may hide a part of the picture, the
light changes, there is noise, and half of the videos are grey. Textures are sums of random fields of different
fineness. Written for the start in docs/real_videos.md, "A start from drawn motion". The same seed gives the same
videos.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from common import cli
from common.files import make_folder
from datasets.preparation.demo_videos import save_video

Image = np.ndarray  # float32 (H, W, 3), BGR in 0..255
Sprite = tuple[Image, Image]  # colours, and opacity in 0..1 (thrice)

#: How a quantity in 0..1 goes over the time in 0..1.
COURSES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "up": lambda time: time,
    "down": lambda time: 1 - time,
    "up_and_back": lambda time: 1 - abs(2 * time - 1),
    "down_and_back": lambda time: abs(2 * time - 1),
    "up_and_back_twice": lambda time: 1 - abs(2 * (2 * time % 1) - 1),
}
CLASSES = [(what, course) for what in ("height", "size", "opening") for course in COURSES] + [
    ("across", course) for course in ("up", "up_and_back", "up_and_back_twice")
]
SPRITE = 64  # pixels of a thing's own picture
REACH = (0.45, 0.9)  # of a change, of the whole range of the quantity


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m benchmarks.drawn_motion", __doc__)
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--videos", type=int, default=250, help="of each class (default: %(default)s)")
    parser.add_argument("--size", type=int, default=72, help="of the square frames, in pixels (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=24, help="of each video (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    sizes = {"size": args.size, "frames": args.frames}
    return cli.run(lambda: draw_all(args.out_dir, range(args.videos), **sizes, seed=args.seed))


def draw_all(folder: Path, numbers: Sequence[int], *, size: int, frames: int, seed: int, keep: bool = False) -> None:
    """Writes folder/CLASS/NUMBER.mp4 for each class and number, with a progress bar.

    Args:
        folder: of the classes.
        numbers: of the videos of each class; a video depends on its own number, not on the others.
        size: height and width in pixels, even.
        frames: of each video.
        seed: of all that is random.
        keep: videos that are there stay as they are.

    Raises:
        OSError: a video cannot be written.
    """
    for number, (what, course) in enumerate(tqdm(CLASSES, desc=f"draw {folder.name}", unit="class")):
        of_class = folder / f"{what}_{course}"
        make_folder(of_class)
        for index in numbers:
            file = of_class / f"{index:04d}.mp4"
            if not (keep and file.is_file()):
                rng = np.random.default_rng([seed, number, index])
                save_video(file, draw_video(what, course, frames=frames, size=size, rng=rng))


def draw_video(what: str, course: str, *, frames: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One video of a class: uint8 (size, size, 3), BGR, for each frame."""
    background = _texture(3 * size, rng)
    others = [(_sprite(rng), _wander(frames, rng)) for _ in range(rng.integers(0, 2))]
    things = [*others, (_sprite(rng), draw_states(what, course, frames=frames, rng=rng))]
    camera = _camera(frames, size, rng)
    bar = _bar(size, rng) if rng.uniform() < 0.15 else None
    light = 1 + 0.25 * _drift(frames, rng)
    noise, grey = rng.uniform(1.0, 5.0), rng.uniform() < 0.5
    pictures = []
    for index in range(frames):
        place = camera[index].copy()
        place[:, 2] -= place[:, :2] @ [size, size]  # the middle third of the background
        picture = cv2.warpAffine(background, place, (size, size), borderMode=cv2.BORDER_REFLECT)
        for sprite, states in things:
            _paint(picture, sprite, states[index], camera[index])
        if bar is not None:
            picture[:, bar[0]] = bar[1]
        grain = rng.standard_normal(picture.shape, dtype=np.float32)
        picture = picture * light[index] + noise * grain
        picture = picture.clip(0, 255).astype(np.uint8)
        pictures.append(
            cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) if grey else picture
        )
    return pictures


# ---- Motion ---------------------------------------------------------------------------------------------------------


def draw_states(what: str, course: str, *, frames: int, rng: np.random.Generator) -> np.ndarray:
    """The states of the thing that the class is about: (frames, 5), each number in 0..1 as `_paint` takes it.

    The change begins and ends anywhere near the ends of the video, and eases in and out or not.
    """
    begin, end = rng.uniform(0, 0.15), rng.uniform(0.85, 1)
    time = np.clip((np.linspace(0, 1, frames) - begin) / (end - begin), 0, 1)
    values = COURSES[course](time)
    if rng.uniform() < 0.5:
        values = values**2 * (3 - 2 * values)
    reach = rng.uniform(*REACH)
    low = rng.uniform(0, 1 - reach)
    changing = low + reach * values
    if what == "across" and rng.uniform() < 0.5:
        changing = 1 - changing  # left or right
    states = np.tile(rng.uniform(0.25, 0.75, 5), (frames, 1))
    states[:, ("across", "height", "size", "opening").index(what)] = changing
    return states


def _wander(frames: int, rng: np.random.Generator) -> np.ndarray:
    """The states of a thing without a class: all of its numbers drift a little."""
    drifts = np.stack([_drift(frames, rng) for _ in range(5)], axis=1)
    return np.clip(rng.uniform(0, 1, 5) + 0.15 * drifts, 0, 1)


def _drift(frames: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random course in -1..1."""
    knots = rng.uniform(-1, 1, (1, 4)).astype(np.float32)
    return cv2.resize(knots, (frames, 1), interpolation=cv2.INTER_CUBIC)[0].clip(-1, 1)


def _camera(frames: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """What the camera does to the picture: affine (frames, 2, 3), up to 6 % of a shift and of a zoom, 4 degrees."""
    strength = rng.uniform(0, 0.6)
    across, down, zoom, turn = (strength * _drift(frames, rng) for _ in range(4))
    matrices: np.ndarray = np.stack(
        [cv2.getRotationMatrix2D((size / 2, size / 2), 6 * t, 1 + 0.1 * z) for t, z in zip(turn, zoom, strict=True)]
    )
    matrices[:, 0, 2] += 0.1 * size * across
    matrices[:, 1, 2] += 0.1 * size * down
    return matrices


# ---- Pictures -------------------------------------------------------------------------------------------------------


def _paint(picture: Image, sprite: Sprite, state: np.ndarray, camera: np.ndarray) -> None:
    """Paints a thing: its place across and up, its size, its opening and its angle, seen by the camera."""
    size = picture.shape[0]
    across, height, scale, opening, angle = state
    side = size * (0.3 + 0.6 * scale)
    wide, tall = side / SPRITE, side * (0.25 + 0.9 * opening) / SPRITE
    turn = 0.6 * (angle - 0.5)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([wide, tall])
    centre = np.array([size * (0.15 + 0.7 * across), size * (0.85 - 0.7 * height)])
    thing = np.column_stack([matrix, centre - matrix @ [SPRITE / 2, SPRITE / 2]])
    seen = np.column_stack([camera[:, :2] @ thing[:, :2], camera[:, :2] @ thing[:, 2] + camera[:, 2]])
    colour, opacity = (cv2.warpAffine(layer, seen, (size, size)) for layer in sprite)
    picture += (colour - picture) * opacity


def _sprite(rng: np.random.Generator) -> Sprite:
    """A blob of a random outline and texture; often with a hole, like a mouth or a ring."""
    corners = int(rng.integers(5, 12))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    outline = SPRITE / 2 * (1 + np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.6, 0.95, (corners, 1)))
    mask = np.zeros((SPRITE, SPRITE), np.float32)
    cv2.fillPoly(mask, [outline.round().astype(np.int32)], 1.0, lineType=cv2.LINE_AA)
    if rng.uniform() < 0.4:
        cv2.circle(mask, (SPRITE // 2, SPRITE // 2), int(rng.integers(6, 14)), 0.0, -1, cv2.LINE_AA)
    blur = int(rng.choice([3, 5, 9]))
    return _texture(SPRITE, rng), cv2.merge([cv2.GaussianBlur(mask, (blur, blur), 0)] * 3)


def _bar(size: int, rng: np.random.Generator) -> tuple[slice, np.ndarray]:
    """Columns that are hidden, and their colour."""
    left, width = int(rng.integers(0, size)), int(rng.integers(size // 16, size // 5))
    return slice(left, left + width), rng.uniform(0, 255, 3)


def _texture(side: int, rng: np.random.Generator) -> Image:
    """A sum of random fields; the finer, the weaker, as in natural pictures, around a random colour."""
    texture = np.zeros((side, side, 3), np.float32)
    for cells in (2, 4, 8, 16, 32):
        field = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        texture += cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC) * rng.uniform(0.5, 2) / cells**0.5
    contrast = rng.uniform(20, 70) / max(float(texture.std()), 1e-6)
    return (rng.uniform(40, 215, 3) + contrast * texture).clip(0, 255).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
