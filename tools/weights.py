"""Weights of checkpoints: the mean of several, or the same under other names.

    python -m tools.weights average output/run/checkpoints --last 5 --out average.pth
    python -m tools.weights average output/run/checkpoints/epoch_*.pth --out average.pth
    python -m tools.weights convert IN OUT --to ours
    python -m tools.weights convert IN OUT --to release --clip_length 16
    python -m tools.weights convert IN OUT --to torchvision

average: the mean is often better than each checkpoint. The result can be validated (train_val_3d.py --eval), used for
prediction and trained from, not resumed. BatchNorm's statistics are averaged like weights.

convert: weights of this project ("ours"), of the authors' release or of torchvision. IN is recognised by its content: a
checkpoint of this project or of the release, .pth or .safetensors; for --to torchvision also a ResNet or Swin of
torchvision, timm or Microsoft. Such image networks lack what looks over time, and are loaded as they are:
network.pretrained_model. OUT is a .pth that holds the state dict.

Exit code: 0, or 2 if something is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from common import cli
from engine.checkpoint import save_checkpoint
from engine.checkpoint_average import average_checkpoints, find_checkpoints
from sifa.weight_files import Target, convert_weights


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return cli.run(partial(args.command, args))


def _average(args: argparse.Namespace) -> None:
    paths = find_checkpoints(args.checkpoints, args.last)
    save_checkpoint(args.out, average_checkpoints(paths))
    cli.say(f"{args.out}: mean of {len(paths)} checkpoints, {', '.join(path.name for path in paths)}")


def _convert(args: argparse.Namespace) -> None:
    state, dropped = convert_weights(args.source, args.to, clip_length=args.clip_length, sifa_kernel=args.sifa_kernel)
    save_checkpoint(args.output, state)
    cli.say(f"{args.output}: {len(state)} tensors" + (f", {len(dropped)} dropped: {dropped[0]} ..." if dropped else ""))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.weights", __doc__)
    commands = parser.add_subparsers(required=True, metavar="average|convert")

    average = commands.add_parser("average", help="the mean of several checkpoints")
    average.set_defaults(command=_average)
    average.add_argument("checkpoints", type=Path, nargs="+", help="files, or folders of epoch_N.pth")
    average.add_argument("--last", type=int, help="how many epochs of a folder; all unless given")
    average.add_argument("--out", type=Path, required=True, help="file to write")

    convert = commands.add_parser("convert", help="weights under other names")
    convert.set_defaults(command=_convert)
    convert.add_argument("source", metavar="IN", type=Path)
    convert.add_argument("output", metavar="OUT", type=Path)
    convert.add_argument("--to", required=True, choices=get_args(Target))
    convert.add_argument("--clip_length", type=int, default=16, help="--to release: frames that its constants are for")
    convert.add_argument("--sifa_kernel", type=int, default=3, help="--to release: neighbourhood size of a Swin")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
