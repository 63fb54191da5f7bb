"""The networks. `build_model` makes one by the name that the settings files use."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from models.sifa import InterFrameAttention
from models.sifa_resnet import SIFANet
from models.weights import load_imagenet_state_dict, load_release_state_dict

__all__ = ["NETWORKS", "InterFrameAttention", "build_model", "load_imagenet_state_dict", "load_release_state_dict"]

#: net_name -> what builds it.
NETWORKS: dict[str, Callable[..., SIFANet]] = {
    "c2d_sifa_resnet50": partial(SIFANet, (3, 4, 6, 3)),
    "c2d_sifa_resnet101": partial(SIFANet, (3, 4, 23, 3)),
}


def build_model(net_name: str, *, num_classes: int, clip_length: int, **options: Any) -> SIFANet:
    """Builds a network, in channels_last.

    Args:
        net_name: a key of `NETWORKS`.
        num_classes: classes of each head.
        clip_length: frames of a clip in training.
        **options: of the network's class, see `SIFANet`: sifa_kernel=(1, 3, 3, 3), dropout_ratio=0.5, width=64,
            dual_head=True, offset_init="zero".

    Returns:
        A module whose forward((N, 3, T, H, W)) returns a tuple of logits (N, num_classes), one for each head.

    Raises:
        ValueError: the name is unknown, or an option has an impossible value.
    """
    if net_name not in NETWORKS:
        raise ValueError(f"net_name must be one of {', '.join(NETWORKS)}, got {net_name!r}")
    model = NETWORKS[net_name](num_classes=num_classes, clip_length=clip_length, **options)
    return model.to(memory_format=torch.channels_last)
