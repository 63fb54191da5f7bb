"""From decoded frames to the sample of a loader, with one random draw for the whole clip.

Every transform takes a clip (T, H, W, 3), RGB, uint8, and returns one (T, crop_size, crop_size, 3). All frames go
through torchvision's `transforms.v2` at once, which draws once a call; random numbers come from torch's global
generator.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from .batches import MEAN

Transform = Callable[[np.ndarray], np.ndarray]

_MAGNITUDES = 31  # RandAugment's m runs from 0 (nothing) to 30 (the most), as in the release's m = 27


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
    short_side: (low, high) pixels in place of scale and ratio: the short side is resized to a whole number drawn from
        low..high, and the crop is cut out anywhere without resizing, as SlowFast is trained.
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
    # The crop comes first: colours cost by the pixel.
    steps: list[nn.Module] = [v2.RandomResizedCrop(crop_size, scale=scale, ratio=ratio, antialias=True)]
    if short_side is not None:
        sizes = list(range(short_side[0], short_side[1] + 1))
        steps = [v2.RandomShortestSize(sizes, antialias=True), v2.RandomCrop(crop_size)]
    if flip:
        steps.append(v2.RandomHorizontalFlip(0.5))
    if rand_augment is not None:
        operations, magnitude = rand_augment
        if operations < 0 or not 0 <= magnitude < _MAGNITUDES:
            wanted = f"(n, m) with n >= 0 and m in 0..{_MAGNITUDES - 1}"
            raise ValueError(f"rand_augment must be {wanted}, got {rand_augment}")
        steps.append(v2.RandAugment(operations, magnitude, num_magnitude_bins=_MAGNITUDES))
    elif color_jitter:
        # v2.ColorJitter's own hue takes most of the time of all transforms together.
        jitter = [v2.ColorJitter(brightness=0.4), v2.ColorJitter(contrast=0.4), v2.ColorJitter(saturation=0.4)]
        steps += [
            v2.RandomApply([v2.RandomOrder([*jitter, HueJitter(0.1)])], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([Blur(0.1, 2.0)], p=0.5),
        ]
    if erasing:
        steps.append(v2.RandomErasing(erasing, value=[round(255 * mean) for mean in MEAN], inplace=True))
    return OnArrays(steps)


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
    return OnArrays([v2.Resize(crop_size, antialias=True), CropAt(crop_size, place)])


# pytest would take the name for a test wherever it is imported.
test_transform.__test__ = False  # type: ignore[attr-defined]


class CropAt(nn.Module):
    """A square of `size` pixels at `place` of the way along both sides: 0 is left and top, 1 right and bottom.

    After the short side was resized to `size`, only the long side has room to move in.
    """

    def __init__(self, size: int, place: float) -> None:
        super().__init__()
        self.size = size
        self.place = place

    def forward(self, clip: Tensor) -> Tensor:
        height, width = clip.shape[-2:]
        top = round((height - self.size) * self.place)
        left = round((width - self.size) * self.place)
        return functional.crop(clip, top, left, self.size, self.size)


class HueJitter(nn.Module):
    """Turn the hue by a fraction of the circle of colours drawn from -amount..amount, one for the clip.

    In 8-bit HSV, as Pillow does it for pictures: 20 times faster than in floating point, and within a few grey levels.
    """

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, clip: Tensor) -> Tensor:
        shift = round(256 * torch.empty(()).uniform_(-self.amount, self.amount).item())
        frames = _channels_last(clip)
        rows = frames.reshape(-1, frames.shape[2], 3)  # (T*H, W, 3): one picture to OpenCV
        hsv = cv2.cvtColor(rows, cv2.COLOR_RGB2HSV_FULL)  # the whole circle in 0..255
        hsv[..., 0] += np.uint8(shift % 256)  # and round it
        turned = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL).reshape(frames.shape)
        return torch.from_numpy(turned).permute(0, 3, 1, 2)


class Blur(nn.Module):
    """Gaussian blur of a deviation (pixels) drawn from low..high, one for the clip; the border is mirrored.

    By OpenCV, frame by frame: ten times faster than v2.GaussianBlur, which does not use that the kernel is separable.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, clip: Tensor) -> Tensor:
        sigma = torch.empty(()).uniform_(self.low, self.high).item()
        frames = _channels_last(clip)
        blurred = np.stack(
            [cv2.GaussianBlur(frame, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) for frame in frames]
        )
        return torch.from_numpy(blurred).permute(0, 3, 1, 2)


class OnArrays:
    """Steps on tensors (T, C, H, W), one after the other, as a transform of arrays (T, H, W, C)."""

    def __init__(self, steps: Sequence[nn.Module]) -> None:
        self.steps = v2.Compose(steps)

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        return _channels_last(self.steps(torch.from_numpy(clip).permute(0, 3, 1, 2)))


def _channels_last(clip: Tensor) -> np.ndarray:
    """(T, C, H, W) as an array (T, H, W, C) for OpenCV, without a copy where the memory is channels-last already."""
    return clip.permute(0, 2, 3, 1).contiguous().numpy()


def _check_size(crop_size: int) -> None:
    if crop_size < 8:
        raise ValueError(f"crop_size must be at least 8 pixels, got {crop_size}")
