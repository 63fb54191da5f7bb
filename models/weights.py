"""Loading of weights into a network: in any known format, completely or not at all."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from models.network import Network
from models.weight_formats import (
    CAFFE_RESNET,
    OF_A_VARIANT,
    PROJECT,
    RELEASE,
    STEMS,
    Format,
    StateDict,
    fold_caffe_input,
    inflate_stem,
    join_names,
    recognise,
    tensors_of,
)


@dataclass
class Report:
    """What happened to every tensor of a file and of a network, by name.

    Args:
        source: what the weights are of.
        remark: continues `source`, where there is more to say.
        matched: loaded as they are.
        inflated: stem kernels for one frame, loaded as kernels for four.
        copied: loaded a second time, into the second copy of a stage.
        interpolated: position tables of another window size, loaded at the network's.
        dropped: names of the file that the network has no use for.
        new: names of the network that keep their values.
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
        """The report as text: for each kind the number of tensors and the first names."""
        rows = [(kind, names) for kind, names in vars(self).items() if names and isinstance(names, list)]
        lines = [f"  {kind:<12}{len(names):>5}  {join_names(names, most=3)}" for kind, names in rows]
        return "\n".join([f"weights of {self.source}{self.remark}", *lines])


def load_release_state_dict(model: Network, state_dict: Mapping[str, Any]) -> Report:
    """Loads a checkpoint (or its state dict) with the names and shapes of the authors' release.

    The release's networks are 3D: kernels (out, in, 1, kh, kw) lose their time axis, and the stem's (out, 3, 4, kh, kw)
    becomes one over 12 stacked channels. Names may have the prefix `module.`. The constants `def_cor.weight` are
    dropped whatever their shape (they tie the release's own checkpoints to one clip length, this project has no such
    limit), and so are the parameters that its Swin blocks never use.

    Args:
        model: gets the weights.
        state_dict: contents of the file.

    Raises:
        ValueError: the weights are not the release's; a key is missing, unexpected or of another shape. The message
            lists the keys.
    """
    state_dict = tensors_of(state_dict)
    found = recognise(state_dict)
    if found is not RELEASE:
        raise ValueError(f"a checkpoint of the release was expected, this is {found.source}")
    return _load(model, state_dict, RELEASE)


def load_imagenet_state_dict(model: Network, state_dict: Mapping[str, Any]) -> Report:
    """Loads an ImageNet classifier of the network's depth and width, as the release inflates it.

    2D kernels are applied to each frame, the stem's is placed at frame 2 of 4 (zeros elsewhere; a stem of one frame
    takes it as it is), res5's weights initialise its second copy, too, and the ImageNet classifier is dropped. Temporal
    modules and classifiers of the network keep their values. Position tables of another window size are interpolated.

    Args:
        model: gets the weights.
        state_dict: contents of the file.

    Raises:
        ValueError: the weights are not an ImageNet classifier's; a key is missing, unexpected or of another shape. The
            message lists the keys.
    """
    state_dict = tensors_of(state_dict)
    found = recognise(state_dict)
    if not found.imagenet:
        raise ValueError(f"ImageNet weights were expected, this is {found.source}")
    return _load(model, state_dict, found)


def load_pretrained(model: Network, contents: Mapping[str, Any], classes: Sequence[str] = ()) -> Report:
    """Loads weights of any known format into a network that is to be trained further.

    The classifier of the file is loaded if it has the network's shape and the classes are not known to differ;
    otherwise the network keeps its own. The same number of classes does not make them the same classes.

    The file may be of another variant of the network, see `load_variant`.

    Args:
        model: gets the weights.
        contents: of the file; a checkpoint of this project names its classes in the entry `classes`.
        classes: names of the network's classes, in order; empty if they are not known. A checkpoint of this project
            with other names, another order or no names has other classes.

    Raises:
        ValueError: the format is not known; a key is missing, unexpected or of another shape. The message lists the
            keys.
    """
    state_dict = tensors_of(contents)
    names = contents.get("classes")
    if not classes or not isinstance(names, list) or names == list(classes):
        return _load(model, state_dict, recognise(state_dict), classifier="if it fits", variant=True)
    report = _load(model, state_dict, recognise(state_dict), classifier="never", variant=True)
    told = f"are {join_names([str(name) for name in names], most=3)}" if names else "have no names"
    report.remark += f", without its classifier: its classes {told}"
    return report


def load_variant(model: Network, state_dict: StateDict) -> Report:
    """Loads weights of this project that may be of another variant of the network.

    What looks over time, and the second head, may be in the file alone (then it is dropped), in the network alone, or
    of another shape (then the network keeps its own; a second copy of res5 starts with the weights of the first). All
    else must fit.

    Args:
        model: gets the weights.
        state_dict: of a network of this project.

    Raises:
        ValueError: a key is missing, unexpected or of another shape. The message lists the keys.
    """
    return _load(model, state_dict, PROJECT, variant=True)


Classifier = Literal["always", "if it fits", "never"]  # when the classifier of a file is loaded


def _load(
    model: Network,
    state_dict: StateDict,
    weight_format: Format,
    *,
    classifier: Classifier = "always",
    variant: bool = False,
) -> Report:
    """load_state_dict that lists all differences in one message, and loads nothing if there are any."""
    if weight_format is CAFFE_RESNET and not model.caffe_style:
        raise ValueError(f"{weight_format.source} has its stride in the first 1x1 convolution: set caffe_style=true")
    own = model.state_dict()
    report = Report(weight_format.source)
    if weight_format.imagenet and model.caffe_style:
        report.remark = ", taken as trained on BGR values in 0..255: they are folded into the stem"
    values: dict[str, Tensor] = {}
    keeps_classifiers = weight_format.imagenet
    parts = {name.split(".")[0] for name in state_dict}
    for source_name, source_value in state_dict.items():
        translated = weight_format.translate(source_name, source_value)
        if translated is not None and _is_refused(model, *translated, own, classifier):
            translated, keeps_classifiers = None, True
        if translated is not None and variant and _is_of_another_variant(*translated, own):
            translated = None
        if translated is None:
            report.dropped.append(source_name)
            continue
        name, value = translated
        if weight_format.imagenet and model.caffe_style and name in STEMS and value.shape[1:2] == (3,):
            value = fold_caffe_input(value)
        values[name] = _to_network(name, value, own, weight_format, report)
        if weight_format.imagenet or variant:
            for copy in _second_copies(model, name):
                if weight_format.imagenet or copy.split(".")[0] not in parts:
                    values[copy] = values[name]
                    report.copied.append(copy)

    absent = [name for name in own if name not in values and not name.endswith(_NOT_REQUIRED)]
    report.new = [
        name
        for name in absent
        if re.match(weight_format.lacks, name)
        or (keeps_classifiers and _is_classifier(model, name))
        or (variant and (re.match(OF_A_VARIANT, name) or name.startswith(_SECOND_HEAD)))
    ]
    missing = [name for name in absent if name not in report.new]
    if problems := _differences(values, own, missing):
        raise ValueError(f"{weight_format.source} does not fit this model; {'; '.join(problems)}")
    model.load_state_dict({**own, **values})
    return report


# BatchNorm's batch counter has no influence on the result, and old checkpoints lack it; the index is a constant.
_NOT_REQUIRED = ("num_batches_tracked", "relative_position_index")


_SECOND_HEAD = ("layer4_dual.", "fc_dual.")  # of SIFA-Net with network.dual_head


def _is_of_another_variant(name: str, value: Tensor, own: StateDict) -> bool:
    """Whether a tensor has no place in the network because the file is of another variant."""
    if name not in own:
        return bool(re.match(OF_A_VARIANT, name)) or name.startswith(_SECOND_HEAD)
    return bool(re.match(OF_A_VARIANT, name)) and value.shape != own[name].shape


def _is_classifier(model: Network, name: str) -> bool:
    return name.split(".")[0] in model.classifiers


def _is_refused(model: Network, name: str, value: Tensor, own: StateDict, classifier: Classifier) -> bool:
    """Whether a tensor is of a classifier that is not to be loaded."""
    if classifier == "always" or not _is_classifier(model, name):
        return False
    return classifier == "never" or (name in own and value.shape != own[name].shape)


def _to_network(name: str, value: Tensor, own: StateDict, weight_format: Format, report: Report) -> Tensor:
    """A tensor in the network's shape where there is a rule for that; the report notes which."""
    fits = name in own and own[name].shape[1:2] == value.shape[1:2]  # a stem of one frame
    if weight_format.imagenet and name in STEMS and value.dim() == 4 and not fits:
        report.inflated.append(name)
        return inflate_stem(value)
    if name.endswith("relative_position_bias_table") and name in own and value.shape != own[name].shape:
        report.interpolated.append(name)
        return _resize_position_table(value, own[name])
    report.matched.append(name)
    return value


def _second_copies(model: Network, name: str) -> list[str]:
    """The names that a tensor has in the second copies of its stage."""
    return [
        f"{copy}.{name.removeprefix(f'{original}.')}"
        for copy, original in model.duplicated_stages.items()
        if name.startswith(f"{original}.")
    ]


def _resize_position_table(table: Tensor, own: Tensor) -> Tensor:
    """A table ((2w-1)^2, heads) of window size w for another window size, by bicubic interpolation as Microsoft's."""
    side, own_side = math.isqrt(table.shape[0]), math.isqrt(own.shape[0])
    if table.shape[1:] != own.shape[1:] or side**2 != table.shape[0] or not table.is_floating_point():
        return table  # reported as misshapen
    image = table.T.reshape(1, -1, side, side).to(own.dtype)
    resized = nn.functional.interpolate(image, (own_side, own_side), mode="bicubic")
    return resized.flatten(2)[0].T


#: Part of all names that are missing or unexpected -> what the reason may be.
_ADVICE = {
    "patch_embed.norm.": "ImageNet's Swin has a norm after the embedding, the release's has none: see patch_norm",
    ".temporal.offset.": "networks with `offset: regular` have no offset convolution",
}


def _differences(values: StateDict, own: StateDict, missing: list[str]) -> list[str]:
    """What keeps values from being loaded, as parts of a sentence; empty if nothing does."""
    unexpected = [name for name in values if name not in own]
    misshapen = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in values.items()
        if name in own and value.shape != own[name].shape
    ]
    mistyped = [
        f"{name} of {value.dtype} instead of {own[name].dtype}"
        for name, value in values.items()
        if name in own and not name.endswith(_NOT_REQUIRED) and not _same_kind(value, own[name])
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen, "mistyped": mistyped}
    problems = [f"{kind}: {join_names(names)}" for kind, names in kinds.items() if names]
    names = missing + unexpected
    return problems + [advice for part, advice in _ADVICE.items() if names and all(part in name for name in names)]


def _same_kind(one: Tensor, other: Tensor) -> bool:
    """Whether both are real floating-point numbers, complex numbers, or whole ones."""
    return (one.is_floating_point(), one.is_complex()) == (other.is_floating_point(), other.is_complex())
