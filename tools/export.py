"""Write a trained network for other runtimes: ONNX, ONNX of int8, or torch.export.

    python -m tools.export --checkpoint output/demo --out demo.onnx
    python -m tools.export --checkpoint output/demo --out demo.pt2
    python -m tools.export --checkpoint output/demo --out int8.onnx --int8 static

The file takes normalised clips (N, 3, T, H, W) and gives probabilities
(N, classes). N may be any number; T, H and W are fixed. The file is read back
and compared with PyTorch before it counts as written. An ONNX file holds
standard operators only; a .pt2 file needs `import cuda_sifa`.

--int8 static: weights and activations of convolutions and matrix products are
integers, in the ranges of --calibrate training videos. dynamic: the weights
are. The file is compared with float32 on --videos validation videos, which the
checkpoint's configuration names. docs/deploy.md tells more.

Exit code: 0, or 2 if something is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import sifa
from common import cli
from common.errors import UserError
from sifa.export import SMALLEST_CROP, check_packages, description, export_network
from sifa.quantization import export_int8


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    return cli.run(partial(_export_int8 if args.int8 else _export, args))


def _export(args: argparse.Namespace) -> None:
    if args.out.suffix not in (".onnx", ".pt2"):
        raise UserError(f"--out must end in .onnx or .pt2, got {args.out}")
    if args.crop_size is not None and args.crop_size < SMALLEST_CROP:
        raise UserError(f"--crop_size must be at least {SMALLEST_CROP}, got {args.crop_size}")
    if args.calibrate is not None or args.videos is not None:
        raise UserError("--calibrate and --videos go with --int8, which is not given")
    predictor = sifa.load(args.checkpoint)
    frames, crop_size = predictor.frames, args.crop_size or predictor.size
    if args.out.suffix == ".onnx":
        check_packages()
    about = description(predictor, crop_size)
    difference = export_network(predictor.model, frames, crop_size, args.out, about)
    cli.say(
        f"{args.out}: clips (N, 3, {frames}, {crop_size}, {crop_size}), {args.out.stat().st_size / 1e6:.1f} MB, "
        f"equal to PyTorch within {difference:.1e} of the largest probability"
    )


def _export_int8(args: argparse.Namespace) -> None:
    if args.out.suffix != ".onnx":
        raise UserError(f"--out must end in .onnx, got {args.out}")
    if args.crop_size is not None:
        raise UserError("--crop_size does not go with --int8: it takes the crop of the validation")
    calibration = 64 if args.calibrate is None else args.calibrate
    videos = 200 if args.videos is None else args.videos
    if min(calibration, videos) < 1:
        raise UserError("--calibrate and --videos must be at least 1")
    written = export_int8(sifa.load(args.checkpoint), args.out, args.int8, calibration=calibration, videos=videos)
    result = written.comparison
    cli.say(
        f"{args.out}: {written.int8_bytes / 1e6:.1f} MB, float32 {written.float32_bytes / 1e6:.1f}; on {result.clips} "
        f"validation clips the same class as float32 in {result.agreement:.1f} %, right {result.right[1]:.1f} % "
        f"(float32 {result.right[0]:.1f}), probabilities {result.difference:.4f} apart on average, "
        f"{result.largest:.3f} at most; {result.ratio:.2f} times its time"
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.export", __doc__, usage="--checkpoint RUN --out FILE [...]")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="RUN", help="folder of a run, or its file")
    add("--out", type=Path, required=True, metavar="FILE", help="NAME.onnx, or NAME.pt2 for torch.export")
    add("--crop_size", type=int, metavar="N", help=f"pixels, at least {SMALLEST_CROP} (default: as in validation)")
    add("--int8", choices=("static", "dynamic"), help="8-bit integers; FILE must be NAME.onnx")
    add("--calibrate", type=int, metavar="N", help="training videos for --int8 static (default: 64)")
    add("--videos", type=int, metavar="N", help="validation videos to compare on (default: 200)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
