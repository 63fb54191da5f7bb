"""Colour operations on clips, in place.

Clips are uint8 (T, H, W, 3), RGB. The functions compute what torchvision's functions of the same names compute
(`transforms.v2.functional`), exactly or within the number of grey levels that the docstring names. Values are changed
by a table of 256 entries, and channels are mixed by a matrix, frame by frame: a frame stays in the processor's cache,
and no copy of the clip in floating point is made.
"""

import cv2
import numpy as np

GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue in the grey of a pixel

_LEVELS = np.arange(256, dtype=np.float32)
_SMOOTHING_KERNEL = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13

# torchvision truncates to whole numbers, OpenCV rounds to the nearest. This offset makes rounding truncate. It is a
# little less than a half, so that whole numbers do not change.
_TRUNCATE = -0.499


def brightness(clip: np.ndarray, factor: float) -> None:
    """Multiplies all values by `factor`, at least 0."""
    _apply_table(clip, _LEVELS * factor)


def contrast(clip: np.ndarray, factor: float) -> None:
    """Multiplies differences from the mean grey of the frame by `factor`, at least 0; within one grey level."""
    for frame in clip:
        mean = np.dot(GREY_WEIGHTS, cv2.mean(frame)[:3]) - 0.5  # torchvision's mean is of truncated greys
        _apply_table(frame[None], _LEVELS * factor + (1 - factor) * mean)


def saturation(clip: np.ndarray, factor: float) -> None:
    """Multiplies differences from the grey of the pixel by `factor`, at least 0; within one grey level."""
    matrix = factor * np.eye(3) + (1 - factor) * np.array(GREY_WEIGHTS)
    affine = np.hstack([matrix, np.full((3, 1), _TRUNCATE)])
    for frame in clip:
        cv2.transform(frame, affine, dst=frame)


def grayscale(clip: np.ndarray) -> None:
    """Sets each pixel to its grey; within one grey level."""
    saturation(clip, 0)


def hue(clip: np.ndarray, shift: float) -> None:
    """Shifts the hue by `shift`, a fraction of the full circle.

    In steps of 1 / 256, as Pillow does: within 1.5 grey levels of torchvision on average, and many times as fast.
    """
    height, width = clip.shape[1:3]
    # A whole row of (hue, saturation, value) at once. 8-bit sums overflow, as an angle does after a full circle.
    step = np.tile(np.array([round(256 * shift) % 256, 0, 0], dtype=np.uint8), width)
    hsv = np.empty((height, width, 3), dtype=np.uint8)
    rows = hsv.reshape(height, 3 * width)
    for frame in clip:
        cv2.cvtColor(frame, cv2.COLOR_RGB2HSV_FULL, dst=hsv)
        np.add(rows, step, out=rows)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=frame)


def blur(clip: np.ndarray, sigma: float) -> None:
    """Gaussian blur of standard deviation `sigma` (pixels); within 2 grey levels.

    The kernel ends at 3 * sigma, and the border is mirrored. In integers, twice as fast as cv2.GaussianBlur.
    """
    size = 2 * round(3 * sigma) + 1
    kernel = np.round(256 * cv2.getGaussianKernel(size, sigma))
    kernel[size // 2] += 256 - kernel.sum()  # an area of one colour keeps its value
    for frame in clip:
        cv2.sepFilter2D(frame, -1, kernel / 256, kernel / 256, dst=frame, borderType=cv2.BORDER_REFLECT_101)


def sharpness(clip: np.ndarray, factor: float) -> None:
    """Multiplies differences from the smoothed frame by `factor`, at least 0; within one grey level.

    Pixels at the border do not change.
    """
    for frame in clip:
        inner, smooth = frame[1:-1, 1:-1], cv2.filter2D(frame, -1, _SMOOTHING_KERNEL)[1:-1, 1:-1]
        cv2.addWeighted(inner, factor, smooth, 1 - factor, _TRUNCATE, dst=inner)


def posterize(clip: np.ndarray, bits: int) -> None:
    """Keeps the `bits` highest of the 8 bits of each value."""
    clip &= 256 - (1 << (8 - bits))


def solarize(clip: np.ndarray, threshold: float) -> None:
    """Replaces each value that is at least `threshold` by 255 minus the value."""
    _apply_table(clip, np.where(threshold <= _LEVELS, 255 - _LEVELS, _LEVELS))


def autocontrast(clip: np.ndarray) -> None:
    """Stretches each channel of a frame to 0..255, unless all its values are equal."""
    for frame in clip:
        tables = []
        for channel in cv2.split(frame):
            low, high, *_ = cv2.minMaxLoc(channel)
            step = np.float32(high - low) * np.float32(1 / 255)
            tables.append((_LEVELS - np.float32(low)) / step if step else _LEVELS)
        _apply_table(frame[None], np.stack(tables, axis=1))


def equalize(clip: np.ndarray) -> None:
    """Equalises the histogram of each channel of a frame, in integers, as Pillow does."""
    for frame in clip:
        tables = []
        for channel in cv2.split(frame):
            counts = cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel().astype(np.int64)
            below = np.cumsum(counts) - counts
            step = (channel.size - counts[counts.nonzero()[0][-1]]) // 255
            tables.append((below + step // 2) // step if step else _LEVELS)
        _apply_table(frame[None], np.stack(tables, axis=1))


def _apply_table(clip: np.ndarray, table: np.ndarray) -> None:
    """Replaces each value v by table[v], clipped to 0..255 and truncated; table is (256,), or (256, 3) by channel."""
    table = np.clip(table, 0, 255).astype(np.uint8).reshape(1, 256, -1)
    for frame in clip:
        cv2.LUT(frame, table, dst=frame)
