"""The formats in which weights come: recognised by their content, and translated to this project's names and shapes.

Known are checkpoints of the authors' release and of this project, and ImageNet classifiers: ResNet as torchvision, timm
and Caffe name it, Swin as torchvision, Microsoft and timm name it. Only state dicts are handled here, no network is
built.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.network import STEM_CENTRE, STEM_FRAMES

StateDict = Mapping[str, Tensor]
_OURS = r"^layer4_dual\.|\.temporal\.|\.context\."  # names that no image network has
STEMS = ("conv1.weight", "patch_embed.proj.weight")  # kernels of SIFA-Net's and SIFA-Transformer's stem


@dataclass(frozen=True)
class Format:
    """A way of naming weights.

    Args:
        source: what it is, for messages.
        translate: maps name and value in the format to name and value in this project; to None if the project does not
            use the tensor.
        lacks: pattern of the project's names that such weights cannot contain, besides the classifiers.
        imagenet: whether the weights are of an image classifier. Then the stem's kernel is 2D, and the classifier is of
            ImageNet's classes.
    """

    source: str
    translate: Callable[[str, Tensor], tuple[str, Tensor] | None]
    lacks: str = r"$^"  # matches no name
    imagenet: bool = False


# ---- Translations ---------------------------------------------------------------------------------------------------


def _project(name: str, value: Tensor) -> tuple[str, Tensor]:
    return name, value


# The release's checkpoints contain constants, and parameters that its Swin blocks never use: the convolution of blocks
# with SIFA, the norm of blocks without.
_UNUSED_IN_RELEASE = re.compile(
    r"(.*\.)?(def_cor\.weight|attn_mask|relative_position_index)$"
    r"|layers\.\d\.blocks\.\d*[02468]\.conv\.weight$|layers\.3\.blocks\.\d+\.conv\.weight$"
    r"|layers\.[012]\.blocks\.\d*[13579]\.tda_norm\.(weight|bias)$"
)
_RELEASE_NAMES = (
    (re.compile(r"\.conv_offset\."), ".temporal.offset."),
    (re.compile(r"(layer\d(?:_dual)?\.\d+)\.(fc[12])\."), r"\1.context.\2."),
    (re.compile(r"\.tda_norm\."), ".norm_temporal."),
    (re.compile(r"(blocks\.\d+)\.conv\."), r"\1.temporal.conv."),
)
_MLP_NAMES = ((re.compile(r"\.mlp\.fc1\."), ".mlp.0."), (re.compile(r"\.mlp\.fc2\."), ".mlp.3."))


def _rename(name: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def _release(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    if _UNUSED_IN_RELEASE.match(name):
        return None
    name = _rename(name, _RELEASE_NAMES + _MLP_NAMES)
    if value.dim() == 5 and name in STEMS:
        value = value.flatten(1, 2)
    elif value.dim() == 5 and value.shape[2] == 1:  # a kernel of another size stays 5D, and is reported as misshapen
        value = value.squeeze(2)
    elif name.endswith(".temporal.conv.weight"):
        value = value.transpose(-2, -1)  # the release's kernel slides along the last axis
    return name, value


def _resnet(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    return None if name in ("fc.weight", "fc.bias") else (name, value)


_CAFFE_STEM = (("bn_conv1", "bn1"), ("scale_conv1", "bn1"), ("conv1", "conv1"))  # layer -> module
_CAFFE_BRANCHES = {"1": ("downsample.0", "downsample.1"), "2a": ("conv1", "bn1"), "2b": ("conv2", "bn2")}
_CAFFE_BRANCHES["2c"] = "conv3", "bn3"


def _caffe_resnet(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    """res4b12_branch2a is the first convolution of the block 12 of res4, res4a_branch2a that of the block 0."""
    layer, _, tensor = name.partition(".")
    for theirs, ours in _CAFFE_STEM:
        if layer == theirs:
            return f"{ours}.{tensor}", value
    if match := re.fullmatch(r"(res|bn|scale)(\d)([a-z])(\d*)_branch(1|2[abc])", layer):
        kind, stage, letter, number, branch = match.groups()
        block = int(number) if number else ord(letter) - ord("a")
        module = _CAFFE_BRANCHES[branch][0 if kind == "res" else 1]
        return f"layer{int(stage) - 1}.{block}.{module}.{tensor}", value
    return None if layer == "fc1000" else (name, value)


def _torchvision_swin(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    if name.startswith("head.") or name.endswith("relative_position_index"):
        return None
    name = name.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
    if match := re.match(r"features\.(\d)\.(.*)", name):
        stage, is_downsample = divmod(int(match[1]) - 1, 2)
        name = f"layers.{stage}.{'downsample' if is_downsample else 'blocks'}.{match[2]}"
    return name, value


def _microsoft_swin(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    if name.startswith("head.") or name.endswith(("relative_position_index", "attn_mask")):
        return None
    return _rename(name, _MLP_NAMES), value


def _timm_swin(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    """As Microsoft's, but patches are merged at the beginning of a stage instead of at the end."""
    name = re.sub(r"^layers\.(\d)\.downsample\.", lambda match: f"layers.{int(match[1]) - 1}.downsample.", name)
    return _microsoft_swin(name, value)


# ---- The formats ----------------------------------------------------------------------------------------------------

RELEASE = Format("the release's checkpoint", _release)
PROJECT = Format("a checkpoint of this project", _project)
_RESNET_LACKS, _SWIN_LACKS = r".*\.(temporal|context)\.", r".*\.(temporal|norm_temporal)\."
RESNET = Format("the ImageNet ResNet", _resnet, _RESNET_LACKS, imagenet=True)
CAFFE_RESNET = Format("Caffe's ImageNet ResNet", _caffe_resnet, _RESNET_LACKS, imagenet=True)
TORCHVISION_SWIN = Format("torchvision's ImageNet Swin", _torchvision_swin, _SWIN_LACKS, imagenet=True)
MICROSOFT_SWIN = Format("Microsoft's ImageNet Swin", _microsoft_swin, _SWIN_LACKS, imagenet=True)
TIMM_SWIN = Format("timm's ImageNet Swin", _timm_swin, _SWIN_LACKS, imagenet=True)


#: Names of this project's parts that only some variants of a network have: what looks over time.
OF_A_VARIANT = r".*\.(temporal|context|norm_temporal)\."


def recognise(state_dict: StateDict) -> Format:
    """The format of a state dict without the prefix `module.`.

    A SIFA-Net with a stem of one frame, one head and no stage that models time has the names of an image network, and
    is taken for one.

    Raises:
        ValueError: the format is not known.
    """
    if "res2a_branch2a.weight" in state_dict:
        return CAFFE_RESNET
    if "features.0.0.weight" in state_dict and "norm.weight" in state_dict:
        return TORCHVISION_SWIN
    for name in STEMS:
        if name not in state_dict:
            continue
        stem = state_dict[name]
        if stem.dim() == 5:
            return RELEASE
        if stem.dim() == 4 and stem.shape[1] == 3 * STEM_FRAMES:
            return PROJECT
        if name == "conv1.weight":
            # A stem of one frame: the project's if it has what no image network has.
            return PROJECT if any(re.search(_OURS, other) for other in state_dict) else RESNET
        return TIMM_SWIN if "layers.3.downsample.norm.weight" in state_dict else MICROSOFT_SWIN
    raise ValueError(
        "the weights are of no network that is known (the release's, ours, a ResNet or Swin of torchvision, timm, "
        f"Microsoft or Caffe); their names are {join_names(list(state_dict)) or 'none'}"
    )


def tensors_of(contents: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in the contents of a file, without the prefix `module.`.

    It is the entry `ema` (averaged weights), `model` or `state_dict`, in this order, or else the contents themselves.
    """
    for entry in ("ema", "model", "state_dict"):
        if isinstance(contents.get(entry), Mapping):
            contents = contents[entry]
            break
    return {name.removeprefix("module."): value for name, value in contents.items() if isinstance(value, Tensor)}


def inflate_stem(kernel: Tensor) -> Tensor:
    """A stem's kernel for one frame, at frame 2 of 4 with zeros elsewhere: (out, 3, kh, kw) -> (out, 12, kh, kw)."""
    frames = kernel.new_zeros(*kernel.shape[:2], STEM_FRAMES, *kernel.shape[2:])
    frames[:, :, STEM_CENTRE] = kernel
    return frames.flatten(1, 2)


#: Standard deviation of ImageNet's RGB values in 0..1, by which clips are divided.
DEVIATIONS = (0.229, 0.224, 0.225)


def fold_caffe_input(kernel: Tensor) -> Tensor:
    """A stem's kernel (out, 3, kh, kw) for BGR values in 0..255 minus their mean, as one for normalised RGB values.

    It gives the same result on the same picture, also at the border, if the means are 103.53, 116.28 and 123.675: they
    are 255 times those by which clips are normalised. The original's mean picture is within a grey level of that.
    """
    scale = kernel.new_tensor(DEVIATIONS)[:, None, None] * 255
    return kernel.flip(1) * scale


def join_names(names: Sequence[str], most: int = 5) -> str:
    """Names for a message: the first ones, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
