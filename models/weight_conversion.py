"""Conversion of this project's weights to the names and shapes of others, and back.

For exchange with the release and torchvision. Only state dicts are handled, no network is built. A tensor that the
other format cannot express is an error, or is dropped and listed.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.network import STEM_CENTRE, STEM_FRAMES
from models.sifa_swin import DEPTHS, WINDOW
from models.weight_formats import CAFFE_RESNET, PROJECT, STEMS, StateDict, inflate_stem, recognise, tensors_of

IMAGE_NETWORKS = "ResNet-50 and -101, Swin-S, -B and -L"  # those that are part of a network of this project
IMAGE_SIZE = 224  # of the release's Swin, whose masks are part of its checkpoints


def is_known_image_network(contents: Mapping[str, Any]) -> bool:
    """Whether ImageNet weights are of one of `IMAGE_NETWORKS`, by number and kind of their blocks.

    Args:
        contents: of a file with ImageNet weights.
    """
    state_dict = to_project(contents)
    block_counts: dict[str, int] = {}  # of each stage
    for name in state_dict:
        if match := re.match(r"(layer\d|layers\.\d\.blocks)\.(\d+)\.", name):
            block_counts[match[1]] = max(block_counts.get(match[1], 0), int(match[2]) + 1)
    depths = tuple(block_counts[stage] for stage in sorted(block_counts))
    if "conv1.weight" not in state_dict:
        return depths == DEPTHS and not any(".cpb_mlp." in name for name in state_dict)  # which Swin v2 has
    # A ResNet-34 is as deep as a ResNet-50, with other blocks; a Wide ResNet or a ResNeXt has other 3x3 convolutions.
    width, inner = len(state_dict["conv1.weight"]), state_dict.get("layer1.0.conv2.weight")
    plain = "layer1.0.conv3.weight" in state_dict and inner is not None and inner.shape[:2] == (width, width)
    return plain and depths in ((3, 4, 6, 3), (3, 4, 23, 3))


def to_project(contents: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights in any known format, under this project's names.

    Of ImageNet weights the classifier is kept, as `fc`, and no weights of temporal modules are added: the result is an
    intermediate step to `to_torchvision`, no network can load it.

    Args:
        contents: of a file.

    Raises:
        ValueError: the format is not known, or Caffe's, whose networks differ from the others.
    """
    state_dict = tensors_of(contents)
    found = recognise(state_dict)
    if found is CAFFE_RESNET:
        raise ValueError(f"{found.source} has its stride in the first 1x1 convolution, which no other network here has")
    converted: dict[str, Tensor] = {}
    for source_name, source_value in state_dict.items():
        classifier = re.fullmatch(r"(?:fc|head|head\.fc)\.(weight|bias)", source_name)
        translated = (f"fc.{classifier[1]}", source_value) if classifier else found.translate(source_name, source_value)
        if translated is not None:
            name, value = translated
            converted[name] = inflate_stem(value) if found.imagenet and name in STEMS else value
    return converted


def to_release(state_dict: StateDict, *, clip_length: int, sifa_kernel: int = 3) -> dict[str, Tensor]:
    """This project's names to the release's, with the constants and unused parameters (zeros) of its checkpoints.

    Args:
        state_dict: under this project's names.
        clip_length: frames of a clip, on which the shapes of the release's constants depend.
        sifa_kernel: neighbourhood size of a Swin, whose weights do not contain it if the neighbourhood is regular.

    Raises:
        ValueError: the names are not this project's, or the release's networks have no place for a tensor.
    """
    _require_project_names(state_dict)
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
        else:
            release_name, release_value = _release_entry(name, value)
            release[release_name] = release_value
    if "patch_embed.proj.weight" in release:
        _complete_swin(release, frames, sifa_kernel)
    return release


def _release_entry(name: str, value: Tensor) -> tuple[str, Tensor]:
    """Name and value in the release of a tensor that has one counterpart there."""
    if name in STEMS:
        if value.shape[1] != 3 * STEM_FRAMES:
            raise ValueError(f"the release has no place for {name}, a stem of one frame")
        return name, value.unflatten(1, (-1, STEM_FRAMES))
    if name.endswith("position_index"):
        return name, value.view(WINDOW**2, WINDOW**2)
    if name.endswith(".temporal.conv.weight"):
        return name.replace(".temporal.conv.", ".conv."), value.transpose(-2, -1)
    name = name.replace(".context.", ".").replace(".norm_temporal.", ".tda_norm.")
    name = name.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
    return name, value.unsqueeze(2) if value.dim() == 4 else value


def _complete_swin(release: dict[str, Tensor], frames: int, sifa_kernel: int) -> None:
    """Adds the constants and the unused parameters of the release's Swin blocks, in place."""
    for stage, depth in enumerate(DEPTHS):
        side = IMAGE_SIZE // 4 // 2**stage
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
    """(windows, 49, 49): -100 between tokens from opposite borders, which a shifted window brings together, else 0."""
    region = torch.zeros(side)
    region[-WINDOW:], region[-(WINDOW // 2) :] = 1, 2
    regions = 3 * region[:, None] + region[None, :]
    windows = regions.unfold(0, WINDOW, WINDOW).unfold(1, WINDOW, WINDOW).reshape(-1, WINDOW**2)
    return torch.where(windows[:, :, None] == windows[:, None, :], 0.0, -100.0)


def to_torchvision(state_dict: StateDict) -> tuple[dict[str, Tensor], list[str]]:
    """This project's names to those of torchvision's ResNet or Swin, of which a network for clips is an extension.

    Args:
        state_dict: under this project's names.

    Returns:
        The state dict of the image network, and the names for which it has no place.

    Raises:
        ValueError: the names are not this project's; the stem looks at more than frame 2 of 4, as after training on
            clips; or a Swin has no norm after the embedding, unlike torchvision's.
    """
    _require_project_names(state_dict)
    is_swin = "patch_embed.proj.weight" in state_dict
    if is_swin and "patch_embed.norm.weight" not in state_dict:
        raise ValueError("torchvision's Swin has a norm after the embedding, these weights have none")
    image: dict[str, Tensor] = {}
    dropped = []
    for name, value in state_dict.items():
        if re.search(r"_dual\.|\.temporal\.|\.norm_temporal\.|\.context\.", name):
            dropped.append(name)
            continue
        if name in STEMS:
            value = _image_stem(name, value)
        image[_torchvision_swin_name(name) if is_swin else name] = value
    return image, dropped


def _image_stem(name: str, kernel: Tensor) -> Tensor:
    """A stem's kernel for one frame, the inverse of `inflate_stem`."""
    if kernel.shape[1] == 3:
        return kernel
    frames = kernel.unflatten(1, (-1, STEM_FRAMES))
    if frames.index_fill(2, torch.tensor(STEM_CENTRE), 0).any():
        raise ValueError(f"{name} looks at more than one frame: no image network has such a stem")
    return frames[:, :, STEM_CENTRE]


def _torchvision_swin_name(name: str) -> str:
    name = name.replace("patch_embed.proj.", "features.0.0.").replace("patch_embed.norm.", "features.0.2.")
    name = re.sub(r"^layers\.(\d)\.blocks\.", lambda match: f"features.{2 * int(match[1]) + 1}.", name)
    name = re.sub(r"^layers\.(\d)\.downsample\.", lambda match: f"features.{2 * int(match[1]) + 2}.", name)
    return re.sub(r"^fc\.", "head.", name)


def _require_project_names(state_dict: StateDict) -> None:
    if recognise(state_dict) is not PROJECT:
        raise ValueError(f"weights under our names are wanted, this is {recognise(state_dict).source}")
