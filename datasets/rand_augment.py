"""RandAugment (Cubuk et al. 2020) on clips: torchvision's operations and magnitudes, one draw for all frames."""

import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from datasets import colour

MAGNITUDES = 31  # m runs from 0 (nothing) to 30 (the most), as in the release's m = 27


def random_operations(clip: np.ndarray, operations: int, magnitude: int) -> None:
    """Changes a clip, uint8 (T, H, W, 3), in place by so many operations, each drawn anew out of OPERATIONS.

    magnitude: of all of them, in 0..30; those that have two directions go either way.
    """
    for _ in range(operations):
        operation, has_directions = list(OPERATIONS.values())[int(torch.randint(len(OPERATIONS), ()))]
        turned = has_directions and torch.rand(()) <= 0.5
        operation(clip, (-1 if turned else 1) * magnitude / (MAGNITUDES - 1))


def _shear(clip: np.ndarray, x: float = 0, y: float = 0) -> None:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    _move(clip, partial(functional.affine, angle=0, translate=[0, 0], scale=1, shear=degrees, center=[0, 0]))


def _translate(clip: np.ndarray, x: float = 0, y: float = 0) -> None:
    """By whole pixels; the share of width and height is given."""
    pixels = [int(x * clip.shape[2]), int(y * clip.shape[1])]
    _move(clip, partial(functional.affine, angle=0, translate=pixels, scale=1, shear=[0, 0]))


def _rotate(clip: np.ndarray, degrees: float) -> None:
    _move(clip, partial(functional.rotate, angle=degrees))


def _move(clip: np.ndarray, transform: Callable[[Tensor], Tensor]) -> None:
    """Pixels to where a transform of torchvision's takes them (the nearest; black where none is), equal in all frames.

    The transform is asked once, on a picture whose pixels know where they are.
    """
    height, width = clip.shape[1:3]
    y, x = torch.meshgrid(torch.arange(1.0, height + 1), torch.arange(1.0, width + 1), indexing="ij")
    origins = (transform(torch.stack([x, y])) - 1).to(torch.int16)  # outside, where the result is 0: -1
    places = origins.permute(1, 2, 0).contiguous().numpy()
    for frame in clip:
        frame[:] = cv2.remap(frame, places, _NO_FRACTIONS, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)


_NO_FRACTIONS = np.empty(0, dtype=np.uint16)  # of places between pixels, to cv2.remap

# The operations of a clip and a strength in 0..1, and whether they have two directions: then it is in -1..1.
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
