"""Weights from elsewhere: recognised by their content, translated to our names and shapes, loaded whole or not at all.

Known are checkpoints of the authors' release and ours, and ImageNet classifiers: ResNet as torchvision and timm name
it, Swin as torchvision, Microsoft and timm name it.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from models.sifa_resnet import STEM_FRAMES, SIFANet

StateDict = Mapping[str, Tensor]
STEM_INDEX = 2  # where the release puts a 2D stem's kernel among its 4 frames
STEMS = ("conv1.weight", "patch_embed.proj.weight")


@dataclass
class Report:
    """What became of every tensor: names of ours, and of the source's where dropped.

    remark: more about the source, where there is more to say.
    """

    source: str
    remark: str = ""
    matched: list[str] = field(default_factory=list)
    inflated: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    interpolated: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def table(self) -> str:
        rows = [(kind, names) for kind, names in vars(self).items() if names and isinstance(names, list)]
        lines = [f"  {kind:<12}{len(names):>5}  {_some(names, most=3)}" for kind, names in rows]
        return "\n".join([f"weights of {self.source}{self.remark}", *lines])


@dataclass(frozen=True)
class Format:
    """One way of naming weights.

    Args:
        source: what it is, for messages.
        translate: (name, value) of theirs to (name, value) of ours; None: the tensor has no place with us.
        keeps: pattern of our names that such weights cannot hold and that keep their values.
        imagenet: the stem is inflated, res5 starts both heads' copies, the classifier is dropped.
    """

    source: str
    translate: Callable[[str, Tensor], tuple[str, Tensor] | None]
    keeps: str = r"$^"
    imagenet: bool = False


# ---- The formats ----------------------------------------------------------------------------------------------------


def _ours(name: str, value: Tensor) -> tuple[str, Tensor]:
    return name, value


# The release keeps constants, and parameters that its Swin blocks never use: the convolution of blocks with SIFA, the
# norm of blocks without.
_RELEASE_DROPS = re.compile(
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
_MLP = ((re.compile(r"\.mlp\.fc1\."), ".mlp.0."), (re.compile(r"\.mlp\.fc2\."), ".mlp.3."))


def _rename(name: str, rules: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def _release(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    if _RELEASE_DROPS.match(name):
        return None
    name = _rename(name, _RELEASE_NAMES + _MLP)
    if value.dim() == 5 and name in STEMS:
        value = value.flatten(1, 2)
    elif value.dim() == 5 and value.shape[2] == 1:  # another size stays, and is reported as misshapen
        value = value.squeeze(2)
    elif name.endswith(".temporal.conv.weight"):
        value = value.transpose(-2, -1)  # theirs slides along the last axis
    return name, value


def _resnet(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    return None if name in ("fc.weight", "fc.bias") else (name, value)


def _torchvision_swin(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    if name.startswith("head.") or name.endswith("relative_position_index"):
        return None
    name = name.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
    if match := re.match(r"features\.(\d)\.(.*)", name):
        stage, blocks = divmod(int(match[1]) - 1, 2)
        name = f"layers.{stage}.{'downsample' if blocks else 'blocks'}.{match[2]}"
    return name, value


def _microsoft_swin(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    if name.startswith("head.") or name.endswith(("relative_position_index", "attn_mask")):
        return None
    return _rename(name, _MLP), value


def _timm_swin(name: str, value: Tensor) -> tuple[str, Tensor] | None:
    """As Microsoft's, but patches are merged at the beginning of a stage."""
    name = re.sub(r"^layers\.(\d)\.downsample\.", lambda match: f"layers.{int(match[1]) - 1}.downsample.", name)
    return _microsoft_swin(name, value)


_RESNET_KEEPS, _SWIN_KEEPS = r".*\.(temporal|context)\.|fc", r".*\.(temporal|norm_temporal)\.|fc\."
RELEASE = Format("the release's checkpoint", _release)
OURS = Format("a checkpoint of this project", _ours)
RESNET = Format("the ImageNet ResNet", _resnet, _RESNET_KEEPS, imagenet=True)
TORCHVISION_SWIN = Format("torchvision's ImageNet Swin", _torchvision_swin, _SWIN_KEEPS, imagenet=True)
MICROSOFT_SWIN = Format("Microsoft's ImageNet Swin", _microsoft_swin, _SWIN_KEEPS, imagenet=True)
TIMM_SWIN = Format("timm's ImageNet Swin", _timm_swin, _SWIN_KEEPS, imagenet=True)


def recognise(state_dict: StateDict) -> Format:
    """The format of a state dict without the prefix `module.`.

    Raises:
        ValueError: it is none that is known.
    """
    if "features.0.0.weight" in state_dict and "norm.weight" in state_dict:
        return TORCHVISION_SWIN
    for name in STEMS:
        if name not in state_dict:
            continue
        stem = state_dict[name]
        if stem.dim() == 5:
            return RELEASE
        if stem.dim() == 4 and stem.shape[1] == 3 * STEM_FRAMES:
            return OURS
        if name == "conv1.weight":
            return RESNET
        return TIMM_SWIN if "layers.3.downsample.norm.weight" in state_dict else MICROSOFT_SWIN
    raise ValueError(
        "the weights are of no network that is known (the release's, ours, a ResNet or Swin of torchvision, timm or "
        f"Microsoft); their names are {_some(list(state_dict)) or 'none'}"
    )


# ---- Loading --------------------------------------------------------------------------------------------------------


def load_release_state_dict(model: nn.Module, state_dict: Mapping[str, Any]) -> Report:
    """Loads a checkpoint (or its state dict) with the names and shapes of the authors' release.

    The release's networks are 3D: kernels (out, in, 1, kh, kw) lose their time axis, and the stem's (out, 3, 4, kh, kw)
    becomes one over 12 stacked channels. Names may carry the prefix `module.`. The constants `def_cor.weight` are
    accepted and dropped whatever their shape (they tie the release's own checkpoints to one clip length, not ours), and
    so are the parameters that its Swin blocks carry and never use.

    Raises:
        ValueError: it is none of the release; a key is missing, unexpected or of another shape; the message lists them.
    """
    state_dict = tensors_of(state_dict)
    found = recognise(state_dict)
    if found is not RELEASE:
        raise ValueError(f"a checkpoint of the release was expected, this is {found.source}")
    return _load(model, state_dict, RELEASE)


def load_imagenet_state_dict(model: nn.Module, state_dict: Mapping[str, Any]) -> Report:
    """Loads an ImageNet classifier of the same depth and width, as the release inflates it.

    2D kernels serve each frame, the stem's is placed at frame 2 of 4 (zeros elsewhere), res5's weights start both
    heads' copies, the ImageNet classifier is dropped. What looks over time and the classifiers keep their values.
    Position tables of another window size are interpolated.

    Raises:
        ValueError: it is none; a key is missing, unexpected or of another shape; the message lists them.
    """
    state_dict = tensors_of(state_dict)
    found = recognise(state_dict)
    if not found.imagenet:
        raise ValueError(f"ImageNet weights were expected, this is {found.source}")
    return _load(model, state_dict, found)


def load_pretrained(model: nn.Module, contents: Mapping[str, Any], classes: Sequence[str] = ()) -> Report:
    """Loads weights of any known kind into a network that is to be trained on.

    Their classifier may be of other classes than the network's, which then keeps its own: as many classes need not be
    the same ones. It is loaded if it is of the right shape and nothing says that the classes differ.

    Args:
        contents: of a file; a checkpoint of ours names its classes in the entry `classes`.
        classes: the names of the network's; empty if they are not known. A checkpoint of ours with other names, or
            another order, or none, is then of other classes.

    Raises:
        ValueError: the weights are of no known kind; a key is missing, unexpected or of another shape.
    """
    state_dict = tensors_of(contents)
    theirs = contents.get("classes")
    if not classes or not isinstance(theirs, list) or theirs == list(classes):
        return _load(model, state_dict, recognise(state_dict), classifier="if it fits")
    report = _load(model, state_dict, recognise(state_dict), classifier="none")
    names = f"are {_some([str(name) for name in theirs], most=3)}" if theirs else "have no names"
    report.remark = f", without its classifier: its classes {names}"
    return report


def tensors_of(contents: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of a file: its contents, or those of its entry `ema` (the mean over a training's last steps),
    `model` or `state_dict`, without `module.`.
    """
    for entry in ("ema", "model", "state_dict"):
        if isinstance(contents.get(entry), Mapping):
            contents = contents[entry]
            break
    return {name.removeprefix("module."): value for name, value in contents.items() if isinstance(value, Tensor)}


def _load(
    model: nn.Module,
    state_dict: StateDict,
    found: Format,
    *,
    classifier: Literal["whole", "if it fits", "none"] = "whole",
) -> Report:
    """load_state_dict with every difference in one message, and nothing loaded if there is any.

    classifier: whether it is loaded like all else, or may, or must, stay as it is.
    """
    wanted = model.state_dict()
    report = Report(found.source)
    values: dict[str, Tensor] = {}
    keeps = re.compile(found.keeps)
    for theirs, original in state_dict.items():
        translated = found.translate(theirs, original)
        if translated is None:
            report.dropped.append(theirs)
            continue
        name, value = translated
        kind = report.matched
        fits = name not in wanted or value.shape == wanted[name].shape
        if found.imagenet and name in STEMS and value.dim() == 4:
            value, kind = inflate(value), report.inflated
        elif not fits and name.endswith("relative_position_bias_table"):
            value, kind = _resize_position_table(value, wanted[name]), report.interpolated
        elif _CLASSIFIER.match(name) and (classifier == "none" or (classifier == "if it fits" and not fits)):
            report.dropped.append(theirs)
            keeps = re.compile(f"{keeps.pattern}|{_CLASSIFIER.pattern}")
            continue
        values[name] = value
        kind.append(name)
        if found.imagenet and name.startswith("layer4.") and isinstance(model, SIFANet) and model.dual_head:
            copy = "layer4_dual." + name.removeprefix("layer4.")
            values[copy] = value
            report.copied.append(copy)

    # BatchNorm's batch counter plays no part in the result, and old checkpoints lack it; the index is a constant.
    absent = [name for name in wanted if name not in values and not name.endswith(_BOOKKEEPING)]
    report.new = [name for name in absent if keeps.match(name)]
    missing = [name for name in absent if not keeps.match(name)]
    unexpected = [name for name in values if name not in wanted]
    misshapen = [
        f"{name} {tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in values.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    mistyped = [
        f"{name} of {value.dtype} instead of {wanted[name].dtype}"
        for name, value in values.items()
        if name in wanted and not name.endswith(_BOOKKEEPING) and not _same_kind(value, wanted[name])
    ]
    differences = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "mistyped": mistyped}
    problems = [f"{kind}: {_some(names)}" for kind, names in differences.items() if names]
    strange = missing + unexpected
    problems += [advice for name, advice in _ADVICE.items() if strange and all(name in other for other in strange)]
    if problems:
        raise ValueError(f"{found.source} does not fit this model; {'; '.join(problems)}")
    model.load_state_dict({**wanted, **values})
    return report


def _same_kind(one: Tensor, other: Tensor) -> bool:
    """Whether both are real floating-point numbers, complex numbers, or whole ones."""
    return (one.is_floating_point(), one.is_complex()) == (other.is_floating_point(), other.is_complex())


_CLASSIFIER = re.compile(r"fc(_dual)?\.")
_BOOKKEEPING = ("num_batches_tracked", "relative_position_index")
_ADVICE = {
    "patch_embed.norm.": "ImageNet's Swin has a norm after the embedding, the release's has none: see patch_norm",
    ".temporal.offset.": "networks with `offset: regular` have no offset convolution",
}


def inflate(kernel: Tensor) -> Tensor:
    """A stem's kernel (out, 3, kh, kw) for one frame, at frame 2 of 4: (out, 12, kh, kw)."""
    frames = kernel.new_zeros(*kernel.shape[:2], STEM_FRAMES, *kernel.shape[2:])
    frames[:, :, STEM_INDEX] = kernel
    return frames.flatten(1, 2)


def _resize_position_table(table: Tensor, wanted: Tensor) -> Tensor:
    """A table ((2w-1)^2, heads) of window size w for another window size, by bicubic interpolation, as Microsoft's."""
    side, new_side = math.isqrt(table.shape[0]), math.isqrt(wanted.shape[0])
    if table.shape[1:] != wanted.shape[1:] or side**2 != table.shape[0] or not table.is_floating_point():
        return table  # it is reported as misshapen
    image = table.T.reshape(1, -1, side, side).to(wanted.dtype)
    resized = nn.functional.interpolate(image, (new_side, new_side), mode="bicubic")
    return resized.flatten(2)[0].T


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
