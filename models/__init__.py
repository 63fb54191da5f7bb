"""The networks. `build_model` makes one by the name that the settings files use."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from models.safetensors import is_safetensors, read_safetensors
from models.sifa import InterFrameAttention
from models.sifa_resnet import SIFANet
from models.sifa_swin import SIFASwin
from models.weights import load_imagenet_state_dict, load_pretrained, load_release_state_dict

__all__ = [
    "NETWORKS",
    "InterFrameAttention",
    "Network",
    "build_model",
    "is_safetensors",
    "load_imagenet_state_dict",
    "load_pretrained",
    "load_release_state_dict",
    "read_safetensors",
]

Network = SIFANet | SIFASwin

#: net_name -> class and what the name says about its size.
NETWORKS: dict[str, tuple[Callable[..., Network], dict[str, Any]]] = {
    "c2d_sifa_resnet50": (SIFANet, {"depths": (3, 4, 6, 3)}),
    "c2d_sifa_resnet101": (SIFANet, {"depths": (3, 4, 23, 3)}),
    "c2d_sifa_swin_vit_s_p4_w7": (SIFASwin, {"width": 96, "heads": 3, "stochastic_depth": 0.3}),
    "c2d_sifa_swin_vit_b_p4_w7": (SIFASwin, {"width": 128, "heads": 4, "stochastic_depth": 0.5}),
    "c2d_sifa_swin_vit_l_p4_w7": (SIFASwin, {"width": 192, "heads": 6, "stochastic_depth": 0.5}),
}


def build_model(net_name: str, *, num_classes: int, clip_length: int, **options: Any) -> Network:
    """Builds a network, in channels_last.

    Args:
        net_name: a key of `NETWORKS`.
        num_classes: classes of each head.
        clip_length: frames of a clip in training.
        **options: of the network's class, `SIFANet` or `SIFASwin`, where each is described. Both have
            sifa_kernel, stages, temporal, offset, offset_init, dropout_ratio and width.

    Returns:
        A module whose forward((N, 3, T, H, W)) returns a tuple of logits (N, num_classes), one for each head.

    Raises:
        ValueError: the name is unknown, the network has no such option, or an option has an impossible value.
    """
    if net_name not in NETWORKS:
        raise ValueError(f"net_name must be one of {', '.join(NETWORKS)}, got {net_name!r}")
    network, size = NETWORKS[net_name]
    known = [name for name in inspect.signature(network).parameters if name not in ("depths", "heads")]
    for name in options:
        if name not in known:
            raise ValueError(f"{net_name} has no option {name}; it has {', '.join(known)}")
    model = network(num_classes=num_classes, clip_length=clip_length, **{**size, **options})
    return model.to(memory_format=torch.channels_last)
