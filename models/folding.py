"""Time as part of the batch: clips (N, T, C, H, W) as N*T maps for the 2D layers, and back.

Between layers a clip is (N, T, C, H, W) with channels innermost in memory. Merging and splitting time are views.
"""

import torch
from torch import Tensor


def merge_time(clip: Tensor) -> Tensor:
    """(N, T, C, H, W) -> (N*T, C, H, W)."""
    return clip.flatten(0, 1)


def split_time(maps: Tensor, frames: int) -> Tensor:
    """(N*T, C, H, W) -> (N, T, C, H, W) for T = `frames`."""
    return maps.unflatten(0, (-1, frames))


def stack_frames(clip: Tensor, step: int) -> Tensor:
    """Stacks groups of `step` consecutive frames as channels: the input of a stem with a stride over time.

    Args:
        clip: (N, C, T, H, W) with T divisible by `step`.

    Returns:
        (N, T/step, C*step, H, W), in which channel c*step + i is channel c of frame i of a group. Channels are
        innermost: this is the one copy that brings a clip into the network's layout.

    Raises:
        ValueError: T is not a positive multiple of `step`.
    """
    n, c, t, h, w = clip.shape
    if t == 0 or t % step != 0:
        raise ValueError(f"the number of frames must be a positive multiple of {step}, got T={t}")
    stacked = clip.unflatten(2, (t // step, step)).permute(0, 2, 4, 5, 1, 3).reshape(n * (t // step), h, w, c * step)
    return split_time(stacked.permute(0, 3, 1, 2), t // step)


def pool_time(clip: Tensor) -> Tensor:
    """Maximum over pairs of frames: (N, T, C, H, W) -> (N, T/2, C, H, W).

    Raises:
        ValueError: T is odd.
    """
    if clip.shape[1] % 2 != 0:
        raise ValueError(f"the dual head halves the feature frames, whose number must be even, got {clip.shape[1]}")
    return torch.maximum(clip[:, 0::2], clip[:, 1::2])
