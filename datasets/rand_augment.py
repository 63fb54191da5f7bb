"""RandAugment (Cubuk et al. 2020) for clips: torchvision's operations and magnitudes, one draw for all frames."""

import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from datasets import colour

NUM_MAGNITUDES = 31  # from 0 (no change) to 30 (the strongest), as for the release's m = 27


def apply_random_operations(clip: np.ndarray, num_operations: int, magnitude: int) -> None:
    """Applies operations that are drawn from OPERATIONS, one after the other, to a clip, in place.

    Args:
        clip: uint8 (T, H, W, 3), RGB.
        num_operations: how many are drawn, each independently.
        magnitude: of all operations, in 0..30. The sign of operations with a sign is drawn too.
    """
    for _ in range(num_operations):
        operation, has_sign = list(OPERATIONS.values())[int(torch.randint(len(OPERATIONS), ()))]
        negative = has_sign and torch.rand(()) <= 0.5
        operation(clip, (-1 if negative else 1) * magnitude / (NUM_MAGNITUDES - 1))


def _shear(clip: np.ndarray, x: float = 0, y: float = 0) -> None:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    _warp(clip, partial(functional.affine, angle=0, translate=[0, 0], scale=1, shear=degrees, center=[0, 0]))


def _translate(clip: np.ndarray, x: float = 0, y: float = 0) -> None:
    """Moves the picture by a fraction of its width and height, in whole pixels."""
    pixels = [int(x * clip.shape[2]), int(y * clip.shape[1])]
    _warp(clip, partial(functional.affine, angle=0, translate=pixels, scale=1, shear=[0, 0]))


def _rotate(clip: np.ndarray, degrees: float) -> None:
    _warp(clip, partial(functional.rotate, angle=degrees))


def _warp(clip: np.ndarray, transform: Callable[[Tensor], Tensor]) -> None:
    """Applies a geometric transform of torchvision to all frames: the nearest pixel, black outside of the frame.

    The transform is computed once, for an image (2, H, W) whose pixels are their own coordinates x, y, from 1 on.
    """
    height, width = clip.shape[1:3]
    y, x = torch.meshgrid(torch.arange(1.0, height + 1), torch.arange(1.0, width + 1), indexing="ij")
    origins = (transform(torch.stack([x, y])) - 1).to(torch.int16)  # outside, where the result is 0: -1
    coordinates = origins.permute(1, 2, 0).contiguous().numpy()  # (H, W, 2)
    for frame in clip:
        frame[:] = cv2.remap(frame, coordinates, _NO_FRACTIONS, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)


_NO_FRACTIONS = np.empty(0, dtype=np.uint16)  # tells cv2.remap that all coordinates are whole numbers

# By torchvision's names: the operation, which takes a clip and a strength, and whether it has a sign. The strength is
# in -1..1 with a sign, in 0..1 without.
OPERATIONS: dict[str, tuple[Callable[[np.ndarray, float], None], bool]] = {
    "Identity": (lambda clip, strength: None, False),
    "ShearX": (lambda clip, strength: _shear(clip, x=0.3 * strength), True),
    "ShearY": (lambda clip, strength: _shear(clip, y=0.3 * strength), True),
    "TranslateX": (lambda clip, strength: _translate(clip, x=150 / 331 * strength), True),
    "TranslateY": (lambda clip, strength: _translate(clip, y=150 / 331 * strength), True),
    "Rotate": (lambda clip, strength: _rotate(clip, 30 * strength), True),
    "Brightness": (lambda clip, strength: colour.brightness(clip, 1 + 0.9 * strength), True),
    "Color": (lambda clip, strength: colour.saturation(clip, 1 + 0.9 * strength), True),
    "Contrast": (lambda clip, strength: colour.contrast(clip, 1 + 0.9 * strength), True),
    "Sharpness": (lambda clip, strength: colour.sharpness(clip, 1 + 0.9 * strength), True),
    "Posterize": (lambda clip, strength: colour.posterize(clip, round(8 - 4 * strength)), False),
    "Solarize": (lambda clip, strength: colour.solarize(clip, 255 * (1 - strength)), False),
    "AutoContrast": (lambda clip, strength: colour.autocontrast(clip), False),
    "Equalize": (lambda clip, strength: colour.equalize(clip), False),
}
