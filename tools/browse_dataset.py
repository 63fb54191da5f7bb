"""Contact sheets of clips as the network sees them: a row of frames for each clip, as PNG.

    python -m tools.browse_dataset --config_file settings/NAME.yml OUT_DIR [--split val] [--count 8] [--epoch 0]

The clips are the first --count of the list, or those of --index, each drawn as the run would draw it in --epoch, or for
the validation every view in turn. The list of what is on which row is printed. Mixup and cutmix, which are done to
batches, do not show.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from common.errors import DataError, UserError
from engine.config import load_config
from sifa.build import build_dataset
from sifa.classes import class_names

_ROWS = 8  # clips on a sheet
_GAP = 2  # pixels between frames


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parse(arguments)
    try:
        config = load_config(options.config_file, options.set)
        data, names = build_dataset(config, train=options.split == "train"), class_names(config)
        indices = options.index or range(min(options.count, len(data)))
        if wrong := [index for index in indices if not 0 <= index < len(data)]:
            raise DataError(f"--index must be in 0..{len(data) - 1}, got {wrong[0]}")
        if not indices or options.frames < 1:
            raise DataError("--count and --frames must be at least 1")
        options.out_dir.mkdir(parents=True, exist_ok=True)
        for number, start in enumerate(range(0, len(indices), _ROWS)):
            rows = []
            file = options.out_dir / f"{options.split}_{number:03d}.png"
            for row, index in enumerate(indices[start : start + _ROWS], start=1):
                clip, label, shown = data[index, options.epoch]
                rows.append(strip(clip, options.frames))
                video = data.videos[shown // data.views]
                name = f" {names[label]}" if names else ""
                print(f"{file} row {row}: {video.path}, class {label}{name}, sample {shown}")
            file.write_bytes(cv2.imencode(".png", sheet(rows))[1].tobytes())
    except (UserError, DataError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"browse_dataset: {' '.join(text.split())}", file=sys.stderr)
        return 2
    return 0


def strip(clip: Tensor, frames: int) -> np.ndarray:
    """At most `frames` frames, evenly spread, of a clip (T, H, W, 3), side by side: uint8 (H, W, 3), BGR."""
    pictures = clip[torch.linspace(0, len(clip) - 1, min(frames, len(clip))).round().long()].numpy()[..., ::-1]
    return np.concatenate([np.pad(picture, ((0, 0), (0, _GAP), (0, 0))) for picture in pictures], axis=1)


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Strips of equal width below each other."""
    return np.concatenate([np.pad(row, ((0, _GAP), (0, 0), (0, 0))) for row in rows])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="browse_dataset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--config_file", required=True, help="a file of settings/")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="section.key=value")
    parser.add_argument("--split", choices=("train", "val"), default="train")
    parser.add_argument("--count", type=int, default=8, help="clips (default: %(default)s)")
    parser.add_argument("--index", type=int, nargs="+", help="samples, in place of the first --count")
    parser.add_argument("--epoch", type=int, default=0, help="whose draws are shown (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="at most so many of a clip (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
