"""Random frames that compress and blur like photographs."""

import cv2
import numpy as np


def natural_clip(frames: int, height: int = 256, width: int = 340, seed: int = 0) -> np.ndarray:
    """A coloured texture that drifts, uint8 (T, H, W, 3), the same for the same seed.

    It is noise of all sizes, weaker where it is finer. As JPEG of quality 90 a frame of 340 x 256 takes 19 to 20 KB,
    like a frame of a Kinetics video.
    """
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), dtype=np.float32)
    size = 2
    while size < 2 * max(height, width):
        grey, tint = random.normal(size=(size, size, 1)), random.normal(size=(size, size, 3))
        octave = cv2.resize((grey + 0.4 * tint).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        picture += octave * 60 / size**0.6
        size *= 2
    picture = np.clip(110 + picture, 0, 255).astype(np.uint8)
    return np.stack([np.roll(picture, (i, 2 * i), axis=(0, 1)) for i in range(frames)])
