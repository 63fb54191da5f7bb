"""Colours of a clip, changed in place.

Clips are uint8 (T, H, W, 3), RGB. The functions are torchvision's of the same names (`transforms.v2.functional`), exact
or within the grey levels that a docstring names. A value's successor is looked up in a table of 256 and colours are
mixed by a matrix, frame by frame: a frame stays in the processor's cache, and a clip of floats never exists.
"""

import cv2
import numpy as np

GREY = (0.2989, 0.587, 0.114)  # how much red, green and blue make of a pixel's grey

_VALUES = np.arange(256, dtype=np.float32)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13

# torchvision cuts off what is behind the point, OpenCV rounds to the nearest. A little less than a half, so that whole
# numbers stay what they are.
_CUT = -0.499


def brightness(clip: np.ndarray, factor: float) -> None:
    """All values times `factor`, at least 0."""
    _look_up(clip, _VALUES * factor)


def contrast(clip: np.ndarray, factor: float) -> None:
    """Distances from the frame's mean grey times `factor`, at least 0; within one grey level."""
    for frame in clip:
        mean = np.dot(GREY, cv2.mean(frame)[:3]) - 0.5  # torchvision's mean is of whole greys, cut off
        _look_up(frame[None], _VALUES * factor + (1 - factor) * mean)


def saturation(clip: np.ndarray, factor: float) -> None:
    """Distances from the pixel's grey times `factor`, at least 0; within one grey level."""
    matrix = factor * np.eye(3) + (1 - factor) * np.array(GREY)
    affine = np.hstack([matrix, np.full((3, 1), _CUT)])
    for frame in clip:
        cv2.transform(frame, affine, dst=frame)


def grayscale(clip: np.ndarray) -> None:
    """Every pixel its grey; within one grey level."""
    saturation(clip, 0)


def hue(clip: np.ndarray, turn: float) -> None:
    """Turn the circle of colours by `turn`, a fraction of the circle.

    In 256 steps of it, as Pillow: within 1.5 grey levels of torchvision's on average, and many times as fast.
    """
    height, width = clip.shape[1:3]
    # A whole row of (hue, saturation, value) at a time; 8-bit sums go round the circle by themselves.
    step = np.tile(np.array([round(256 * turn) % 256, 0, 0], dtype=np.uint8), width)
    hsv = np.empty((height, width, 3), dtype=np.uint8)
    rows = hsv.reshape(height, 3 * width)
    for frame in clip:
        cv2.cvtColor(frame, cv2.COLOR_RGB2HSV_FULL, dst=hsv)
        np.add(rows, step, out=rows)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=frame)


def blur(clip: np.ndarray, sigma: float) -> None:
    """Gaussian blur of deviation `sigma` (pixels), cut off at three of them, the border mirrored; within 2 grey levels.

    In integers, twice as fast as cv2.GaussianBlur.
    """
    size = 2 * round(3 * sigma) + 1
    kernel = np.round(256 * cv2.getGaussianKernel(size, sigma))
    kernel[size // 2] += 256 - kernel.sum()  # a plain surface keeps its value
    for frame in clip:
        cv2.sepFilter2D(frame, -1, kernel / 256, kernel / 256, dst=frame, borderType=cv2.BORDER_REFLECT_101)


def sharpness(clip: np.ndarray, factor: float) -> None:
    """Distances from the smoothed frame times `factor`, at least 0, but at the border; within one grey level."""
    for frame in clip:
        inner, smooth = frame[1:-1, 1:-1], cv2.filter2D(frame, -1, _SMOOTH)[1:-1, 1:-1]
        cv2.addWeighted(inner, factor, smooth, 1 - factor, _CUT, dst=inner)


def posterize(clip: np.ndarray, bits: int) -> None:
    """Keep so many of the 8 bits of each value."""
    clip &= 256 - (1 << (8 - bits))


def solarize(clip: np.ndarray, threshold: float) -> None:
    """Turn values from `threshold` on into 255 minus themselves."""
    _look_up(clip, np.where(threshold <= _VALUES, 255 - _VALUES, _VALUES))


def autocontrast(clip: np.ndarray) -> None:
    """Stretch each channel of a frame to 0..255, unless it is plain."""
    for frame in clip:
        tables = []
        for channel in cv2.split(frame):
            low, high, *_ = cv2.minMaxLoc(channel)
            step = np.float32(high - low) * np.float32(1 / 255)
            tables.append((_VALUES - np.float32(low)) / step if step else _VALUES)
        _look_up(frame[None], np.stack(tables, axis=1))


def equalize(clip: np.ndarray) -> None:
    """Flatten the histogram of each channel of a frame, in whole steps, as Pillow does."""
    for frame in clip:
        tables = []
        for channel in cv2.split(frame):
            counts = cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel().astype(np.int64)
            below = np.cumsum(counts) - counts
            step = (channel.size - counts[counts.nonzero()[0][-1]]) // 255
            tables.append((below + step // 2) // step if step else _VALUES)
        _look_up(frame[None], np.stack(tables, axis=1))


def _look_up(clip: np.ndarray, table: np.ndarray) -> None:
    """The values' places in a table, (256,) or for each channel (256, 3); what is behind the point is cut off."""
    bytes_ = np.clip(table, 0, 255).astype(np.uint8)
    for frame in clip:
        cv2.LUT(frame, bytes_.reshape(1, 256, -1), dst=frame)
