"""From decoded frames to the sample of a loader, with one random draw for the whole clip.

Every transform takes a clip (T, H, W, 3), RGB, uint8, and returns a new one (T, crop_size, crop_size, 3), contiguous.
Random numbers come from torch's global generator, a draw for all frames at once; but for `short_side`, the same seed
draws what torchvision's `transforms.v2` would.
"""

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from datasets import colour
from datasets.normalisation import MEAN
from datasets.rand_augment import MAGNITUDES, random_operations

Transform = Callable[[np.ndarray], np.ndarray]


def train_transform(
    crop_size: int,
    *,
    color_jitter: bool = True,
    rand_augment: tuple[int, int] | None = None,
    flip: bool = True,
    scale: Sequence[float] = (0.2, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    short_side: Sequence[int] | None = None,
    erasing: float = 0.0,
) -> Transform:
    """The release's training transform.

    A crop of a random part `scale` of the area, of aspect `ratio`, resized to crop_size (pixels); a horizontal flip
    half of the time; colour jitter (p 0.8), grayscale (p 0.2) and Gaussian blur (p 0.5).

    color_jitter: False leaves out jitter, grayscale and blur.
    rand_augment: (n, m) puts RandAugment, n operations of magnitude m in 0..30, in place of jitter, grayscale and blur.
    flip: False for classes that tell left from right.
    short_side: (low, high) pixels in place of scale and ratio: the clip is resized to a short side of a whole number
        drawn from low..high, and the crop is cut out anywhere, as SlowFast is trained.
    erasing: how often a rectangle (2 to 33 % of the area, the same in all frames) is set to the mean colour.

    Raises ValueError for a size, range or magnitude that cannot be.
    """
    _check_size(crop_size)
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise ValueError(f"{name} must be two numbers with 0 < low <= high, got {(low, high)}")
    if short_side is not None and not crop_size <= short_side[0] <= short_side[1]:
        wanted = f"two numbers with crop_size {crop_size} <= low <= high"
        raise ValueError(f"short_side must be {wanted}, got {tuple(short_side)}")
    if not 0 <= erasing <= 1:
        raise ValueError(f"erasing must be a probability in 0..1, got {erasing}")
    if rand_augment is not None and (rand_augment[0] < 0 or not 0 <= rand_augment[1] < MAGNITUDES):
        wanted = f"(n, m) with n >= 0 and m in 0..{MAGNITUDES - 1}"
        raise ValueError(f"rand_augment must be {wanted}, got {rand_augment}")
    if short_side is not None:
        crop = partial(random_scale_crop, size=crop_size, low=short_side[0], high=short_side[1])
    else:
        crop = partial(random_resized_crop, size=crop_size, scale=list(scale), ratio=list(ratio))
    colours: Callable[[np.ndarray], None] | None = jitter_and_blur if color_jitter else None
    if rand_augment is not None:
        colours = partial(random_operations, operations=rand_augment[0], magnitude=rand_augment[1])
    return partial(_augment, crop=crop, flip=flip, colours=colours, erasing=erasing)


def val_transform(crop_size: int) -> Transform:
    """Resize the short side to crop_size (pixels) and cut out the centre."""
    return test_transform(crop_size, crop=0, num_crops=1)


def test_transform(crop_size: int, crop: int, num_crops: int) -> Transform:
    """Resize the short side to crop_size (pixels) and cut out crop `crop` of `num_crops`.

    One crop is the centre; more are spaced evenly along the long side, from its first pixel to its last (left, centre,
    right or top, centre, bottom for the release's 3). Raises ValueError unless 0 <= crop < num_crops.
    """
    _check_size(crop_size)
    if not 0 <= crop < num_crops:
        raise ValueError(f"crop must be in 0..{num_crops - 1} (num_crops is {num_crops}), got {crop}")
    place = crop / (num_crops - 1) if num_crops > 1 else 0.5
    return partial(_view, size=crop_size, place=place)


# pytest would take the name for a test wherever it is imported.
test_transform.__test__ = False  # type: ignore[attr-defined]


def _augment(
    clip: np.ndarray,
    *,
    crop: Transform,
    flip: bool,
    colours: Callable[[np.ndarray], None] | None,
    erasing: float,
) -> np.ndarray:
    """What a training clip goes through: first the crop, because all else costs by the pixel and is done in place."""
    clip = crop(clip)
    if flip and _chance(0.5):
        for frame in clip:
            cv2.flip(frame, 1, dst=frame)
    if colours is not None:
        colours(clip)
    if _chance(erasing):
        erase(clip)
    return clip


def _view(clip: np.ndarray, *, size: int, place: float) -> np.ndarray:
    """A square of `size` pixels at `place` of the way along both sides: 0 is left and top, 1 right and bottom.

    After the short side was resized to `size`, only the long side has room to move in.
    """
    clip = _resize(clip, [size])
    height, width = clip.shape[1:3]
    top, left = round((height - size) * place), round((width - size) * place)
    return np.ascontiguousarray(clip[:, top : top + size, left : left + size])


def random_resized_crop(clip: np.ndarray, *, size: int, scale: list[float], ratio: list[float]) -> np.ndarray:
    """A random part `scale` of the area, of aspect `ratio`, resized to `size`: torchvision's draw and result."""
    top, left, height, width = v2.RandomResizedCrop.get_params(_frames(clip), scale, ratio)
    return _resize(clip[:, top : top + height, left : left + width], [size, size])


def random_scale_crop(clip: np.ndarray, *, size: int, low: int, high: int) -> np.ndarray:
    """A square of `size` pixels out of the clip resized to a random short side in low..high.

    Only the square is resized, whose side in the clip is rounded to a whole pixel.
    """
    height, width = clip.shape[1:3]
    side = round(size * min(height, width) / _integer(low, high))
    top, left = _integer(0, height - side), _integer(0, width - side)
    return _resize(clip[:, top : top + side, left : left + side], [size, size])


def jitter_and_blur(clip: np.ndarray) -> None:
    """The release's colours, in place: jitter in random order (p 0.8), grayscale (p 0.2), Gaussian blur (p 0.5)."""
    if _chance(0.8):
        order = torch.randperm(4).tolist()
        jitter = [
            (colour.brightness, _uniform(0.6, 1.4)),
            (colour.contrast, _uniform(0.6, 1.4)),
            (colour.saturation, _uniform(0.6, 1.4)),
            (colour.hue, _uniform(-0.1, 0.1)),
        ]
        for i in order:
            change, amount = jitter[i]
            change(clip, amount)
    if _chance(0.2):
        colour.grayscale(clip)
    if _chance(0.5):
        colour.blur(clip, _uniform(0.1, 2.0))


def erase(clip: np.ndarray) -> None:
    """Set a random rectangle of torchvision's draw, the same in all frames, to ImageNet's mean colour, in place."""
    area, ratio = (0.02, 0.33), (0.3, 3.3)
    top, left, height, width, _ = v2.RandomErasing.get_params(_frames(clip), area, ratio, [0.0])
    clip[:, top : top + height, left : left + width] = [round(255 * mean) for mean in MEAN]


def _resize(clip: np.ndarray, size: list[int]) -> np.ndarray:
    """To (height, width) or so short a side, as a new clip: bilinear, antialiased.

    torchvision's for bytes is as fast as OpenCV's without antialiasing, as long as channels are innermost in memory.
    """
    resized = functional.resize(_frames(clip), size, antialias=True).permute(0, 2, 3, 1).numpy()
    return resized.copy() if np.may_share_memory(resized, clip) else np.ascontiguousarray(resized)


def _frames(clip: np.ndarray) -> Tensor:
    """(T, H, W, 3) as torchvision wants it, (T, 3, H, W), in the same memory."""
    return torch.from_numpy(clip).permute(0, 3, 1, 2)


def _chance(probability: float) -> bool:
    return torch.rand(()).item() < probability


def _uniform(low: float, high: float) -> float:
    return torch.empty(()).uniform_(low, high).item()


def _integer(low: int, high: int) -> int:
    """In low..high, both included."""
    return int(torch.randint(low, high + 1, ()).item())


def _check_size(crop_size: int) -> None:
    if crop_size < 8:
        raise ValueError(f"crop_size must be at least 8 pixels, got {crop_size}")
