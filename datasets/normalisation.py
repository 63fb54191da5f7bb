"""From the batches of a loader to the input of a network, on its device."""

from functools import cache

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB values in 0..1
STD = (0.229, 0.224, 0.225)


@cache
def _row_statistics(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation for a row of pixels, 0..255. Cached, because a copy to a GPU waits for the GPU."""
    mean, std = (torch.tensor(values, device=device).mul_(255).repeat(width) for values in (MEAN, STD))
    return mean, std  # (W * 3,) each


def normalise(clips: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normalises a batch of clips by ImageNet's mean and standard deviation.

    Args:
        clips: uint8 (N, T, H, W, 3), RGB, on any device.
        dtype: of the result, a floating type.

    Returns:
        (N, 3, T, H, W) on the same device, a view of (N, T, H, W, 3): each frame is channels-last in memory.

    Raises:
        ValueError: clips is not uint8 (N, T, H, W, 3).
    """
    if clips.dtype != torch.uint8 or clips.dim() != 5 or clips.shape[-1] != 3:
        raise ValueError(f"clips must be uint8 (N, T, H, W, 3), got {clips.dtype} {tuple(clips.shape)}")
    # A row of pixels at once: the three values of one pixel are too few for vector instructions.
    width = clips.shape[3]
    mean, std = _row_statistics(width, clips.device)
    values = clips.flatten(3).float().sub_(mean).div_(std).unflatten(3, (width, 3))
    return values.to(dtype).permute(0, 4, 1, 2, 3)
