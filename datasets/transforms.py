"""From decoded frames to the sample of a loader, with one random draw for the whole clip.

A transform takes a clip, uint8 (T, H, W, 3), RGB, and returns another one, uint8 (T, crop_size, crop_size, 3),
contiguous. Random numbers come from torch's global generator, one draw for all frames. The same seed draws what
torchvision's `transforms.v2` draws, except for `short_side`, which torchvision does not have.
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
from datasets.rand_augment import NUM_MAGNITUDES, apply_random_operations

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
    """The release's training transform: random resized crop, horizontal flip (p 0.5), jitter and blur.

    Args:
        crop_size: height and width of the result in pixels.
        color_jitter: colour jitter (p 0.8), grayscale (p 0.2) and Gaussian blur (p 0.5).
        rand_augment: (n, m) for RandAugment instead of jitter and blur, n operations of magnitude m in 0..30.
        flip: False for classes that differ in left and right.
        scale: (low, high), area of the crop as a fraction of the frame.
        ratio: (low, high), width of the crop divided by its height.
        short_side: (low, high) pixels, instead of scale and ratio: the clip is resized to a random short side in
            low..high, and the crop is cut out at a random position, as SlowFast is trained.
        erasing: probability that a rectangle (2 to 33 % of the area, the same in all frames) is set to the mean colour.

    Raises:
        ValueError: an argument is out of range.
    """
    _check_crop_size(crop_size)
    _check_augmentation(crop_size, rand_augment, scale, ratio, short_side, erasing)
    if short_side is not None:
        crop = partial(random_scale_crop, size=crop_size, low=short_side[0], high=short_side[1])
    else:
        crop = partial(random_resized_crop, size=crop_size, scale=list(scale), ratio=list(ratio))
    change_colours: Callable[[np.ndarray], None] | None = jitter_and_blur if color_jitter else None
    if rand_augment is not None:
        change_colours = partial(apply_random_operations, num_operations=rand_augment[0], magnitude=rand_augment[1])
    return partial(_augment, crop=crop, flip=flip, change_colours=change_colours, erasing=erasing)


def val_transform(crop_size: int) -> Transform:
    """Resizes the short side to crop_size (pixels) and cuts out the centre.

    Raises:
        ValueError: crop_size is below 8.
    """
    return test_transform(crop_size, crop=0, num_crops=1)


def test_transform(crop_size: int, crop: int, num_crops: int) -> Transform:
    """Resizes the short side to crop_size (pixels) and cuts out one of several crops.

    Args:
        crop_size: height and width of the result in pixels.
        crop: number of the crop, 0-based.
        num_crops: 1: the centre; more: at equal distances along the long side, from its first pixel to its last (left,
            centre, right or top, centre, bottom for the release's 3).

    Raises:
        ValueError: crop is not in 0..num_crops-1, or crop_size is below 8.
    """
    _check_crop_size(crop_size)
    if not 0 <= crop < num_crops:
        raise ValueError(f"crop must be in 0..{num_crops - 1} (num_crops is {num_crops}), got {crop}")
    fraction = crop / (num_crops - 1) if num_crops > 1 else 0.5
    return partial(_resize_and_crop, size=crop_size, fraction=fraction)


# pytest would take the name for a test wherever it is imported.
test_transform.__test__ = False  # type: ignore[attr-defined]


def random_resized_crop(clip: np.ndarray, *, size: int, scale: list[float], ratio: list[float]) -> np.ndarray:
    """A random crop, resized to a square; the draw and the result are torchvision's.

    Args:
        clip: uint8 (T, H, W, 3).
        size: of the result in pixels.
        scale: [low, high], area of the crop as a fraction of the frame.
        ratio: [low, high], width of the crop divided by its height.

    Returns:
        uint8 (T, size, size, 3).
    """
    top, left, height, width = v2.RandomResizedCrop.get_params(_channels_first(clip), scale, ratio)
    return _resize(clip[:, top : top + height, left : left + width], [size, size])


def random_scale_crop(clip: np.ndarray, *, size: int, low: int, high: int) -> np.ndarray:
    """A random square crop of the clip after it is resized to a random short side.

    Only the crop is resized; its side in the original clip is rounded to a whole pixel.

    Args:
        clip: uint8 (T, H, W, 3).
        size: of the result in pixels.
        low: smallest short side in pixels.
        high: largest short side in pixels.

    Returns:
        uint8 (T, size, size, 3).
    """
    height, width = clip.shape[1:3]
    side = round(size * min(height, width) / _random_integer(low, high))
    top, left = _random_integer(0, height - side), _random_integer(0, width - side)
    return _resize(clip[:, top : top + side, left : left + side], [size, size])


def jitter_and_blur(clip: np.ndarray) -> None:
    """The release's colours, in place: jitter in random order (p 0.8), grayscale (p 0.2), Gaussian blur (p 0.5)."""
    if _chance(0.8):
        order = torch.randperm(4).tolist()
        jitter = [
            (colour.brightness, _random_uniform(0.6, 1.4)),
            (colour.contrast, _random_uniform(0.6, 1.4)),
            (colour.saturation, _random_uniform(0.6, 1.4)),
            (colour.hue, _random_uniform(-0.1, 0.1)),
        ]
        for i in order:
            operation, amount = jitter[i]
            operation(clip, amount)
    if _chance(0.2):
        colour.grayscale(clip)
    if _chance(0.5):
        colour.blur(clip, _random_uniform(0.1, 2.0))


def erase(clip: np.ndarray) -> None:
    """Sets a random rectangle, the same in all frames, to ImageNet's mean colour, in place. torchvision's draw."""
    area, ratio = (0.02, 0.33), (0.3, 3.3)
    top, left, height, width, _ = v2.RandomErasing.get_params(_channels_first(clip), area, ratio, [0.0])
    clip[:, top : top + height, left : left + width] = [round(255 * mean) for mean in MEAN]


def _augment(
    clip: np.ndarray,
    *,
    crop: Transform,
    flip: bool,
    change_colours: Callable[[np.ndarray], None] | None,
    erasing: float,
) -> np.ndarray:
    """Augments a training clip. The crop comes first: the rest works in place, and its cost grows with the pixels."""
    clip = crop(clip)
    if flip and _chance(0.5):
        for frame in clip:
            cv2.flip(frame, 1, dst=frame)
    if change_colours is not None:
        change_colours(clip)
    if _chance(erasing):
        erase(clip)
    return clip


def _resize_and_crop(clip: np.ndarray, *, size: int, fraction: float) -> np.ndarray:
    """Resizes the short side to `size` and cuts out a square at a fraction of the free length of the long side.

    A fraction of 0 is left or top, 1 is right or bottom. The short side has no free length.
    """
    clip = _resize(clip, [size])
    height, width = clip.shape[1:3]
    top, left = round((height - size) * fraction), round((width - size) * fraction)
    return np.ascontiguousarray(clip[:, top : top + size, left : left + size])


def _resize(clip: np.ndarray, size: list[int]) -> np.ndarray:
    """Resizes to [height, width], or to a short side [size], as a new clip: bilinear, antialiased.

    torchvision's function is as fast for uint8 as OpenCV's without antialiasing, if channels are innermost in memory.
    """
    resized = functional.resize(_channels_first(clip), size, antialias=True).permute(0, 2, 3, 1).numpy()
    return resized.copy() if np.may_share_memory(resized, clip) else np.ascontiguousarray(resized)


def _channels_first(clip: np.ndarray) -> Tensor:
    """A clip (T, H, W, 3) as torchvision takes it, (T, 3, H, W): a view of the same memory."""
    return torch.from_numpy(clip).permute(0, 3, 1, 2)


def _chance(probability: float) -> bool:
    return torch.rand(()).item() < probability


def _random_uniform(low: float, high: float) -> float:
    return torch.empty(()).uniform_(low, high).item()


def _random_integer(low: int, high: int) -> int:
    """An integer in low..high, both included."""
    return int(torch.randint(low, high + 1, ()).item())


def _check_crop_size(crop_size: int) -> None:
    if crop_size < 8:
        raise ValueError(f"crop_size must be at least 8 pixels, got {crop_size}")


def _check_augmentation(
    crop_size: int,
    rand_augment: tuple[int, int] | None,
    scale: Sequence[float],
    ratio: Sequence[float],
    short_side: Sequence[int] | None,
    erasing: float,
) -> None:
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise ValueError(f"{name} must be two numbers with 0 < low <= high, got {(low, high)}")
    if short_side is not None and not crop_size <= short_side[0] <= short_side[1]:
        wanted = f"two numbers with crop_size {crop_size} <= low <= high"
        raise ValueError(f"short_side must be {wanted}, got {tuple(short_side)}")
    if not 0 <= erasing <= 1:
        raise ValueError(f"erasing must be a probability in 0..1, got {erasing}")
    if rand_augment is not None and (rand_augment[0] < 0 or not 0 <= rand_augment[1] < NUM_MAGNITUDES):
        wanted = f"(n, m) with n >= 0 and m in 0..{NUM_MAGNITUDES - 1}"
        raise ValueError(f"rand_augment must be {wanted}, got {rand_augment}")
