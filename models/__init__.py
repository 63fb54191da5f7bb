"""The networks. `build_model` makes one by the name that the settings files use."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch

from models.caffemodel import is_caffemodel, read_caffemodel
from models.network import Network
from models.safetensors import is_safetensors, read_safetensors
from models.sifa import InterFrameAttention
from models.sifa_resnet import SIFANet, SIFANetOptions
from models.sifa_swin import SIFASwin, SIFASwinOptions
from models.temporal import TemporalModelling
from models.weights import load_imagenet_state_dict, load_pretrained, load_release_state_dict, load_variant

__all__ = [
    "NETWORKS",
    "InterFrameAttention",
    "Network",
    "SIFANet",
    "SIFANetOptions",
    "SIFASwin",
    "SIFASwinOptions",
    "TemporalModelling",
    "build_model",
    "choose_options",
    "is_caffemodel",
    "is_safetensors",
    "list_models",
    "load_imagenet_state_dict",
    "load_pretrained",
    "load_release_state_dict",
    "load_variant",
    "read_caffemodel",
    "read_safetensors",
]

#: net_name -> class of the network, and its options.
NETWORKS: dict[str, tuple[Callable[..., Network], SIFANetOptions | SIFASwinOptions]] = {
    "c2d_sifa_resnet26": (SIFANet, SIFANetOptions(depths=(2, 2, 2, 2))),  # not of the paper: for few videos
    "c2d_sifa_resnet50": (SIFANet, SIFANetOptions(depths=(3, 4, 6, 3))),
    "c2d_sifa_resnet101": (SIFANet, SIFANetOptions(depths=(3, 4, 23, 3))),
    "c2d_sifa_swin_vit_s_p4_w7": (SIFASwin, SIFASwinOptions(width=96, heads=3, stochastic_depth=0.3)),
    "c2d_sifa_swin_vit_b_p4_w7": (SIFASwin, SIFASwinOptions(width=128, heads=4, stochastic_depth=0.5)),
    "c2d_sifa_swin_vit_l_p4_w7": (SIFASwin, SIFASwinOptions(width=192, heads=6, stochastic_depth=0.5)),
}
FIXED_BY_NAME = ("depths", "heads")  # options that net_name alone determines
TEMPORAL_OPTIONS = [field.name for field in fields(TemporalModelling)]


def list_models() -> list[str]:
    """The names that `build_model` knows."""
    return list(NETWORKS)


def build_model(net_name: str, *, num_classes: int, clip_length: int, **options: Any) -> Network:
    """Builds a network, in channels_last.

    Args:
        net_name: one of `list_models()`.
        num_classes: classes of each head.
        clip_length: frames of a clip in training.
        **options: of the network, see `SIFANetOptions` and `SIFASwinOptions`; those of `TemporalModelling` are given
            one by one, like the others.

    Returns:
        A network whose forward maps (N, 3, T, H, W) to a tuple of logits (N, num_classes), one for each head.

    Raises:
        ValueError: the name is unknown, the network has no such option, or an option has an impossible value.
    """
    chosen = choose_options(net_name, **options)
    model = NETWORKS[net_name][0](chosen, num_classes=num_classes, clip_length=clip_length)
    return model.to(memory_format=torch.channels_last)


def choose_options(net_name: str, **options: Any) -> SIFANetOptions | SIFASwinOptions:
    """The options that `build_model` builds a network with: those given, and the network's own defaults.

    Raises:
        ValueError: as `build_model`.
    """
    if net_name not in NETWORKS:
        raise ValueError(f"net_name must be one of {', '.join(NETWORKS)}, got {net_name!r}")
    defaults = NETWORKS[net_name][1]
    known = ["num_classes", "clip_length", *_option_names(defaults)]
    for name in options:
        if name not in known:
            raise ValueError(f"{net_name} has no option {name}; it has {', '.join(known)}")
    temporal = {name: options.pop(name) for name in TEMPORAL_OPTIONS if name in options}
    modelling = replace(defaults.temporal_modelling, **temporal)
    return replace(defaults, temporal_modelling=modelling, **options)


def _option_names(options: SIFANetOptions | SIFASwinOptions) -> list[str]:
    """The names of the options that `build_model` takes, with those of `TemporalModelling` one by one."""
    names: list[str] = []
    for field in fields(options):
        if field.name == "temporal_modelling":
            names += TEMPORAL_OPTIONS
        elif field.name not in FIXED_BY_NAME:
            names.append(field.name)
    return names
