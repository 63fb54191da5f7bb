"""Weights from elsewhere: the authors' release, and torchvision's ImageNet classifiers."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from models.sifa_resnet import STEM_FRAMES, SIFANet

# The release keeps the constant 1/C of its correlation in the checkpoint.
_CONSTANT = re.compile(r"(.*\.)?def_cor\.weight$")
_RENAMED = (
    (re.compile(r"\.conv_offset\."), ".temporal.offset."),
    (re.compile(r"(layer\d(?:_dual)?\.\d+)\.(fc[12])\."), r"\1.context.\2."),
)
STEM_INDEX = 2  # where the release puts a 2D stem's kernel among its 4 frames


def load_release_state_dict(model: SIFANet, state_dict: Mapping[str, Tensor]) -> None:
    """Loads a checkpoint with the names and shapes of the authors' release.

    The release's networks are 3D: kernels (out, in, 1, kh, kw) lose their time axis, and the stem's (out, 3, 4, 7, 7)
    becomes one over 12 stacked channels. Names may carry the prefix `module.`. The constants `def_cor.weight` are
    accepted and dropped whatever their shape; they tie the release's own checkpoints to one clip length, not ours.

    Raises:
        ValueError: a key is missing, unexpected or of another shape; the message lists them.
    """
    converted = {}
    for name, value in state_dict.items():
        name = name.removeprefix("module.")
        if _CONSTANT.match(name):
            continue
        for pattern, replacement in _RENAMED:
            name = pattern.sub(replacement, name)
        if value.dim() == 5:
            value = value.flatten(1, 2) if name == "conv1.weight" else _without_time(value)
        converted[name] = value
    _load_all(model, converted, source="the release's checkpoint")


def _without_time(kernel: Tensor) -> Tensor:
    return kernel.squeeze(2) if kernel.shape[2] == 1 else kernel  # left as it is, it is reported as misshapen


def load_imagenet_state_dict(model: SIFANet, state_dict: Mapping[str, Tensor]) -> None:
    """Loads a torchvision ResNet of the same depth, as the release inflates it.

    2D kernels serve each frame, the stem's is placed at frame 2 of 4 (zeros elsewhere), res5's weights start both
    heads' copies, the ImageNet classifier is dropped. SIFA, the global contexts and the classifiers keep their values.

    Raises:
        ValueError: a key is missing, unexpected or of another shape; the message lists them.
    """
    converted = {}
    for name, value in state_dict.items():
        if name in ("fc.weight", "fc.bias"):
            continue
        if name == "conv1.weight" and value.dim() == 4:
            stem = value.new_zeros(value.shape[0], value.shape[1], STEM_FRAMES, *value.shape[2:])
            stem[:, :, STEM_INDEX] = value
            value = stem.flatten(1, 2)
        converted[name] = value
        if model.dual_head and name.startswith("layer4."):
            converted["layer4_dual." + name.removeprefix("layer4.")] = value
    own = {name: value for name, value in model.state_dict().items() if re.search(r"\.(temporal|context)\.|^fc", name)}
    _load_all(model, {**own, **converted}, source="the ImageNet weights")


def _load_all(model: torch.nn.Module, state_dict: Mapping[str, Tensor], *, source: str) -> None:
    """load_state_dict with every difference in one message, and nothing loaded if there is any."""
    wanted = model.state_dict()
    # BatchNorm's batch counter plays no part in the result, and old checkpoints lack it.
    missing = [name for name in wanted if name not in state_dict and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state_dict if name not in wanted]
    misshapen = [
        f"{name} {tuple(value.shape)} instead of {tuple(wanted[name].shape)}"
        for name, value in state_dict.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    problems = [
        f"{kind}: {_some(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if problems:
        raise ValueError(f"{source} does not fit this model; {'; '.join(problems)}")
    model.load_state_dict({**wanted, **state_dict})


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
