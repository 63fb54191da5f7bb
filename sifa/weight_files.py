"""Files of weights: read in either format, or written under other names (of this project, the release, torchvision)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from common.errors import one_line
from engine.checkpoint import CheckpointError, checkpoint_file, read_checkpoint
from models import is_caffemodel, is_safetensors, read_caffemodel, read_safetensors
from models.weight_conversion import IMAGE_NETWORKS, is_known_image_network, to_project, to_release, to_torchvision
from models.weight_formats import recognise, tensors_of

Target = Literal["ours", "release", "torchvision"]


def read_weight_file(file: Path) -> Mapping[str, Any]:
    """What a file of weights holds: .caffemodel by its name, .pth or .safetensors by its content.

    Raises:
        CheckpointError: it cannot be read.
        ValueError: it is a damaged .safetensors or .caffemodel.
    """
    if is_caffemodel(file):
        return read_caffemodel(file)
    file = checkpoint_file(file)
    return read_safetensors(file) if is_safetensors(file) else read_checkpoint(file)


def convert_weights(
    source: Path, target: Target, *, clip_length: int, sifa_kernel: int
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a file under other names.

    Args:
        source: .pth or .safetensors; its content tells whose weights it has.
        target: whose names the result has.
        clip_length: frames of a clip, to which constants of the release are tied.
        sifa_kernel: of a SIFA-Transformer, for the release: a regular neighbourhood is not stored in its weights.

    Returns:
        The state dict, and the names that the target has no place for.

    Raises:
        CheckpointError: the file cannot be read or is of no known kind; the target cannot express its weights; or it
            is of an image network that no network here contains, or that would be half of a clip network.
    """
    try:
        contents = read_weight_file(source)
        kind = recognise(tensors_of(contents))
        if kind.imagenet and not is_known_image_network(contents):
            raise ValueError(
                f"{kind.source} is of a size or kind that no network here has; those of {IMAGE_NETWORKS} are known"
            )
        if kind.imagenet and target != "torchvision":
            raise ValueError(
                f"{kind.source} lacks what looks over time, so that no network could load it as --to {target}; load it "
                "directly, as network.pretrained_model"
            )
        named = to_project(contents)
        if target == "ours":
            return named, []
        if target == "release":
            _require_attention_of_the_release(contents)
            return to_release(named, clip_length=clip_length, sifa_kernel=sifa_kernel), []
        return to_torchvision(named)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None
    except (LookupError, RuntimeError) as error:  # what the conversion looks for is not there, or cannot be reshaped
        raise CheckpointError(f"{source}: a tensor is missing or has a wrong shape: {one_line(error)}") from None


def _require_attention_of_the_release(contents: Mapping[str, Any]) -> None:
    """Raises ValueError if a checkpoint's network does with its weights what the release's network does not."""
    config = contents.get("config")
    settings = config.get("SIFA") if isinstance(config, Mapping) else None
    if not isinstance(settings, Mapping):
        return  # bare weights: nothing tells
    if settings.get("cosine"):
        raise ValueError("the release has no attention by cosines (SIFA.cosine)")
    if (source := settings.get("offset")) in ("difference", "next_frame"):
        raise ValueError(f"the release predicts offsets from motion saliency, this network from {source}")
