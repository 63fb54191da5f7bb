"""Weights under other names: ours, the authors' release's or torchvision's.

python -m tools.convert_weights IN OUT --to ours
python -m tools.convert_weights IN OUT --to release --clip_length 16
python -m tools.convert_weights IN OUT --to torchvision

IN is recognised by its content: a checkpoint of ours or of the release, .pth or .safetensors; for --to torchvision also
a ResNet or Swin of torchvision, timm or Microsoft. Such image networks lack what looks over time, and are loaded as
they are: network.pretrained_model. OUT is a .pth that holds the state dict.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import models
from common.errors import UserError
from engine.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from models.weight_conversion import (
    IMAGE_NETWORKS,
    is_known_image_network,
    to_project,
    to_release,
    to_torchvision,
)
from models.weight_formats import recognise, tensors_of


def convert(source: Path, target: str, *, clip_length: int, sifa_kernel: int) -> tuple[dict[str, Any], list[str]]:
    """The state dict under the names of `target`, and what was dropped on the way.

    Raises:
        CheckpointError: the file cannot be read, is of no known kind, has what the other side cannot express, or is an
            image network's and would be half of a clip's, or of an image network without a counterpart here.
    """
    try:
        contents: Any = models.read_safetensors(source) if models.is_safetensors(source) else read_checkpoint(source)
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
        ours = to_project(contents)
        if target == "ours":
            return ours, []
        if target == "release":
            return to_release(ours, clip_length=clip_length, sifa_kernel=sifa_kernel), []
        return to_torchvision(ours)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", type=Path)
    parser.add_argument("output", metavar="OUT", type=Path)
    parser.add_argument("--to", required=True, choices=["ours", "release", "torchvision"])
    parser.add_argument("--clip_length", type=int, default=16, help="--to release: frames that its constants are for")
    parser.add_argument("--sifa_kernel", type=int, default=3, help="--to release: neighbourhood size of a Swin")
    args = parser.parse_args(argv)
    try:
        state, dropped = convert(args.source, args.to, clip_length=args.clip_length, sifa_kernel=args.sifa_kernel)
        save_checkpoint(args.output, state)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.output}: {len(state)} tensors" + (f", {len(dropped)} dropped: {dropped[0]} ..." if dropped else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
