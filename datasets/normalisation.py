"""From batches as the loader gives them to what the network takes, on the device."""

from functools import cache

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's RGB values in 0..1
STD = (0.229, 0.224, 0.225)


@cache
def _row(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a row of pixels, 0..255. Kept, since bringing them to a GPU waits for what it computes."""
    mean, std = (torch.tensor(values, device=device).mul_(255).repeat(width) for values in (MEAN, STD))
    return mean, std


def normalise(clips: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A batch of clips with ImageNet's mean 0 and deviation 1.

    clips: uint8 (N, T, H, W, 3), RGB, on any device.

    Returns (N, 3, T, H, W) of a floating `dtype` on the same device: a view of (N, T, H, W, 3), so that each frame is
    channels-last in memory. Raises ValueError for clips of another form.
    """
    if clips.dtype != torch.uint8 or clips.dim() != 5 or clips.shape[-1] != 3:
        raise ValueError(f"clips must be uint8 (N, T, H, W, 3), got {clips.dtype} {tuple(clips.shape)}")
    # A row of pixels at a time: three values are too few for a vector.
    width = clips.shape[3]
    mean, std = _row(width, clips.device)
    values = clips.flatten(3).float().sub_(mean).div_(std).unflatten(3, (width, 3))
    return values.to(dtype).permute(0, 4, 1, 2, 3)
