"""Weights of ours under the names and shapes of others, and back: for exchange with the release and torchvision.

Only state dicts are seen, no network is built. What the other side cannot express is refused, or dropped and told.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.sifa_resnet import STEM_FRAMES
from models.sifa_swin import DEPTHS, WINDOW
from models.weights import OURS, STEM_INDEX, STEMS, StateDict, inflate, recognise, tensors_of

COUNTERPARTS = "ResNet-50 and -101, Swin-S, -B and -L"  # image networks that are within ours
IMAGE = 224  # the size of the release's Swin, whose masks are part of its checkpoints


def is_counterpart(contents: Mapping[str, Any]) -> bool:
    """Whether ImageNet weights are of an image network within a network of ours, by its blocks."""
    ours = to_ours(contents)
    blocks: dict[str, int] = {}  # of a stage
    for name in ours:
        if match := re.match(r"(layer\d|layers\.\d\.blocks)\.(\d+)\.", name):
            blocks[match[1]] = max(blocks.get(match[1], 0), int(match[2]) + 1)
    depths = tuple(blocks[stage] for stage in sorted(blocks))
    if "conv1.weight" not in ours:
        return depths == DEPTHS and not any(".cpb_mlp." in name for name in ours)  # which Swin v2 has
    # A ResNet-34 is as deep as a ResNet-50, of other blocks; a Wide ResNet or a ResNeXt has other 3x3 convolutions.
    width, inner = len(ours["conv1.weight"]), ours.get("layer1.0.conv2.weight")
    plain = "layer1.0.conv3.weight" in ours and inner is not None and inner.shape[:2] == (width, width)
    return plain and depths in ((3, 4, 6, 3), (3, 4, 23, 3))


def to_ours(contents: Mapping[str, Any]) -> dict[str, Tensor]:
    """Any known kind under our names.

    Of ImageNet weights the classifier is kept, as `fc`, and nothing is made up for what looks over time: the result is
    half-way to `to_torchvision`, and no network takes it.
    """
    state_dict = tensors_of(contents)
    found = recognise(state_dict)
    ours: dict[str, Tensor] = {}
    for theirs, value in state_dict.items():
        classifier = re.fullmatch(r"(?:fc|head|head\.fc)\.(weight|bias)", theirs)
        translated = (f"fc.{classifier[1]}", value) if classifier else found.translate(theirs, value)
        if translated is not None:
            name, value = translated
            ours[name] = inflate(value) if found.imagenet and name in STEMS else value
    return ours


def to_release(state_dict: StateDict, *, clip_length: int, sifa_kernel: int = 3) -> dict[str, Tensor]:
    """Our names to the release's, with the constants and unused parameters (zeros) that its checkpoints have.

    Args:
        state_dict: of ours.
        clip_length: frames of a clip, to which the release's constants are tied.
        sifa_kernel: of a Swin, whose regular neighbourhood leaves no trace in its weights.

    Raises:
        ValueError: the release's networks have no place for a tensor.
    """
    _require_ours(state_dict)
    frames = clip_length // STEM_FRAMES
    release: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        if match := re.match(r"(layer\d(_dual)?\.\d+)\.temporal\.offset\.weight$", name):
            channels, size = value.shape[1], math.isqrt(value.shape[0] // 2)
            if state_dict[f"{match[1]}.conv2.weight"].shape[0] != channels:
                raise ValueError(f"the release has no place for {name}, offsets from a 3D convolution")
            release[f"{match[1]}.conv_offset.weight"] = value.unsqueeze(2)
            shape = channels, frames // (2 if match[2] else 1), size, size
            release[f"{match[1]}.def_cor.weight"] = value.new_full(shape, 1 / channels)
        elif re.match(r"layer\d.*\.temporal\.|patch_embed\.norm\.|layers\..*\.temporal\.offset\.", name):
            raise ValueError(f"the release has no place for {name}")
        elif name in STEMS:
            release[name] = value.unflatten(1, (-1, STEM_FRAMES))
        elif name.endswith("position_index"):
            release[name] = value.view(WINDOW**2, WINDOW**2)
        elif name.endswith(".temporal.conv.weight"):
            release[name.replace(".temporal.conv.", ".conv.")] = value.transpose(-2, -1)
        else:
            renamed = name.replace(".context.", ".").replace(".norm_temporal.", ".tda_norm.")
            renamed = renamed.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
            release[renamed] = value.unsqueeze(2) if value.dim() == 4 else value
    if "patch_embed.proj.weight" in release:
        _complete_swin(release, frames, sifa_kernel)
    return release


def _complete_swin(release: dict[str, Tensor], frames: int, sifa_kernel: int) -> None:
    for stage, depth in enumerate(DEPTHS):
        side = IMAGE // 4 // 2**stage
        for index in range(depth):
            block = f"layers.{stage}.blocks.{index}"
            like = release[f"{block}.norm1.weight"]
            channels = len(like)
            shape = channels, frames, sifa_kernel, sifa_kernel
            release[f"{block}.def_cor.weight"] = like.new_full(shape, 1 / channels)
            release.setdefault(f"{block}.conv.weight", like.new_zeros(channels, channels, 1, 3))
            for name in ("weight", "bias"):
                release.setdefault(f"{block}.tda_norm.{name}", like.new_zeros(channels))
            if index % 2 == 1 and side > WINDOW:
                release[f"{block}.attn_mask"] = _shift_mask(side).to(like.dtype)


def _shift_mask(side: int) -> Tensor:
    """(windows, 49, 49): -100 between tokens that a shifted window brings together from opposite borders."""
    region = torch.zeros(side)
    region[-WINDOW:], region[-(WINDOW // 2) :] = 1, 2
    regions = 3 * region[:, None] + region[None, :]
    windows = regions.unfold(0, WINDOW, WINDOW).unfold(1, WINDOW, WINDOW).reshape(-1, WINDOW**2)
    return torch.where(windows[:, :, None] == windows[:, None, :], 0.0, -100.0)


def to_torchvision(state_dict: StateDict) -> tuple[dict[str, Tensor], list[str]]:
    """The image network in a clip's: our names to torchvision's ResNet or Swin.

    Returns:
        The state dict, and the names of ours that an image network has no place for.

    Raises:
        ValueError: the stem looks at more than frame 2 of 4, as after training on clips; or a Swin has no norm after
            the embedding, as torchvision's has.
    """
    _require_ours(state_dict)
    if "patch_embed.proj.weight" in state_dict and "patch_embed.norm.weight" not in state_dict:
        raise ValueError("torchvision's Swin has a norm after the embedding, these weights have none")
    image: dict[str, Tensor] = {}
    dropped = []
    for name, value in state_dict.items():
        if re.search(r"_dual\.|\.temporal\.|\.norm_temporal\.|\.context\.", name):
            dropped.append(name)
            continue
        if name in STEMS:
            frames = value.unflatten(1, (-1, STEM_FRAMES))
            if frames.index_fill(2, torch.tensor(STEM_INDEX), 0).any():
                raise ValueError(f"{name} looks at more than one frame: no image network has such a stem")
            value = frames[:, :, STEM_INDEX]
        if "patch_embed.proj.weight" in state_dict:
            name = name.replace("patch_embed.proj.", "features.0.0.").replace("patch_embed.norm.", "features.0.2.")
            name = re.sub(r"^layers\.(\d)\.blocks\.", lambda match: f"features.{2 * int(match[1]) + 1}.", name)
            name = re.sub(r"^layers\.(\d)\.downsample\.", lambda match: f"features.{2 * int(match[1]) + 2}.", name)
            name = re.sub(r"^fc\.", "head.", name)
        image[name] = value
    return image, dropped


def _require_ours(state_dict: StateDict) -> None:
    if recognise(state_dict) is not OURS:
        raise ValueError(f"weights under our names are wanted, this is {recognise(state_dict).source}")
