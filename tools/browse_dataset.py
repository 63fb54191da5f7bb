"""Contact sheets of clips as the network sees them: a row of frames for each clip, as PNG.

    python -m tools.browse_dataset OUT_DIR --config_file settings/NAME.yml [--split val] [--count 8] [--epoch 0]

The clips are the first --count of the list, or those of --index, each drawn as the run would draw it in --epoch, or for
the validation every view in turn. Above each stand its class and the path of its video; the list of what is on which
row is printed, too. --gamma 0.4 shows dark videos brighter. Mixup and cutmix, which are done to batches, do not show.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import cli
from common.errors import UserError
from engine.config import load_config
from sifa.build import build_dataset
from sifa.classes import class_names
from sifa.picture_files import brighten, write_picture
from visualization.caption import caption

_ROWS = 8  # clips on a sheet
_GAP = 2  # pixels between frames


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return cli.run(partial(_browse, _parse(argv)))


def _browse(args: argparse.Namespace) -> None:
    config = load_config(args.config_file, args.set)
    data, names = build_dataset(config, train=args.split == "train"), class_names(config)
    indices = args.index or range(min(args.count, len(data)))
    for index in indices:
        cli.check_range("--index", index, 0, len(data) - 1)
    if not indices or args.frames < 1:
        raise UserError("--count and --frames must be at least 1")
    if not 0 < args.gamma < math.inf:  # nan is not
        raise UserError(f"--gamma must be a number above 0, got {args.gamma:g}")
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(indices), _ROWS)):
        file = args.out_dir / f"{args.split}_{number:03d}.png"
        rows = []
        for row, index in enumerate(indices[start : start + _ROWS], start=1):
            clip, label, sample = data[index, args.epoch]
            video = data.videos[sample // data.views].path
            rows.append(strip(clip, args.frames, args.gamma, f"{names[label] if names else label}: {video}"))
            name = f" {names[label]}" if names else ""
            cli.say(f"{file} row {row}: {video}, class {label}{name}, sample {sample}")
        write_picture(file, sheet(rows))


def strip(clip: Tensor, frames: int, gamma: float, text: str) -> np.ndarray:
    """At most `frames` frames, evenly spread, of a clip (T, H, W, 3), side by side below a text: uint8 (H, W, 3)."""
    chosen = clip[torch.linspace(0, len(clip) - 1, min(frames, len(clip))).round().long()].numpy()
    pictures = [np.pad(picture, ((0, 0), (0, _GAP), (0, 0))) for picture in brighten(chosen, gamma)]
    row = np.concatenate(pictures, axis=1)
    return np.concatenate([caption(text, row.shape[1]), row])


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Strips of equal width below each other."""
    return np.concatenate([np.pad(row, ((0, _GAP), (0, 0), (0, 0))) for row in rows])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.browse_dataset", __doc__)
    add = parser.add_argument
    add("out_dir", type=Path, metavar="OUT_DIR")
    add("--config_file", required=True, help="a file of settings/")
    cli.add_set_option(parser)
    add("--split", choices=("train", "val"), default="train")
    add("--count", type=int, default=8, help="clips (default: %(default)s)")
    cli.add_option_with_values(parser, "--index", r"\d+", type=int, help="samples, instead of the first --count")
    add("--epoch", type=int, default=0, help="whose draws are shown (default: %(default)s)")
    add("--frames", type=int, default=8, help="at most so many of a clip (default: %(default)s)")
    add("--gamma", type=float, default=1.0, help="below 1 shows dark videos brighter")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
