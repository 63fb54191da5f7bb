"""The mean of several checkpoints' weights, often better than each of them (Izmailov et al. 2018).

python -m tools.average_checkpoints output/run/checkpoints/epoch_*.pth --out average.pth
python -m tools.average_checkpoints output/run/checkpoints --last 5 --out average.pth

The result can be validated (train_val_3d.py --eval), used for prediction and trained from, not resumed. BatchNorm's
statistics are averaged like weights.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from engine.checkpoint import CheckpointError, entry, newest_first, read_checkpoint, save_checkpoint, weights


def average_checkpoints(paths: list[Path]) -> dict[str, Any]:
    """The entries of a checkpoint with the mean of the weights that would be validated (of each its "ema", or "model").

    What is no floating-point number (counters) is the last one's, as are configuration, class names and epoch.

    Raises:
        CheckpointError: a file cannot be read, or is of another network than the first.
    """
    mean: dict[str, torch.Tensor] = {}
    contents: dict[str, Any] = {}
    for path in paths:
        contents = read_checkpoint(path)
        state = weights(contents, path)
        if not mean:
            mean = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
            kinds = {name: (value.shape, value.dtype) for name, value in state.items()}
            continue
        if kinds != {name: (value.shape, value.dtype) for name, value in state.items()}:
            raise CheckpointError(f"checkpoint {path} is of another network than {paths[0]}")
        for name, value in state.items():
            mean[name] = mean[name] + value if value.is_floating_point() else value
    model = {
        name: (value / len(paths)).to(kinds[name][1]) if value.is_floating_point() else value
        for name, value in mean.items()
    }
    return {"model": model, **{name: entry(contents, name, paths[-1]) for name in ("epoch", "config", "classes")}}


def chosen(paths: list[Path], last: int | None) -> list[Path]:
    """The files that are named, and of folders the `last` epochs, oldest first.

    Raises:
        UserError: there are fewer.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        epochs = [file for file in newest_first(path) if file.name.startswith("epoch_")][:last]
        if not epochs or len(epochs) < (last or 1):
            raise UserError(f"{path} has {len(epochs)} checkpoints epoch_N.pth, {last or 1} are wanted")
        found += reversed(epochs)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="files, or folders of epoch_N.pth")
    parser.add_argument("--last", type=int, help="how many epochs of a folder; all unless given")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    try:
        paths = chosen(args.checkpoints, args.last)
        save_checkpoint(args.out, average_checkpoints(paths))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: mean of {len(paths)} checkpoints, {', '.join(path.name for path in paths)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
