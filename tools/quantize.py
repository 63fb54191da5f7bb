"""Write a trained network as an ONNX file of 8-bit integers, and measure what that costs.

    python -m tools.quantize --checkpoint output/demo/checkpoints/last.pth --out demo-int8.onnx [--int8 static]

static: weights and activations of convolutions and matrix products are integers; the activations' ranges are those of
--calibrate training videos. dynamic: the weights are, and the activations' ranges are taken anew in each call. All else
stays float32. The file takes and gives what tools/export.py's do.

On --videos validation videos it is compared with the float32 file: how often both choose the same class, how far their
probabilities are apart, how much time they take, side by side. The videos are those of the checkpoint's configuration,
found by its paths. Exit code: 0, or 2 if something is wrong.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

import sifa
from common.errors import DataError, UserError
from datasets.normalisation import normalise
from engine.schema import Config
from sifa.build import build_dataset
from tools.export import Runner, check_packages, export, onnx_runner

Int8 = Literal["static", "dynamic"]
LAYERS = ["Conv", "Gemm", "MatMul"]  # what int8 makes faster; what lies between (SIFA's sampling) needs the precision


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same clips.

    Args:
        clips: how many.
        agreement: share of them of which both choose the same class.
        difference, largest: of the probabilities, the mean and the largest one.
        ratio: time of the second over that of the first, one clip at a time, in turns; the fastest of each, as what a
            shared machine adds is never negative.
        right: share of the clips whose class each chooses.
    """

    clips: int
    agreement: float
    difference: float
    largest: float
    ratio: float
    right: tuple[float, float]


def quantize(path: Path, out: Path, how: Int8, clips: list[Tensor]) -> None:
    """Writes an ONNX file of float32 as one of int8, per channel.

    Args:
        clips: (1, 3, T, H, W) each, normalised: those that static takes the activations' ranges from.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.clips: Iterator[Tensor] = iter(clips)

        def get_next(self) -> Any:
            clip = next(self.clips, None)
            return None if clip is None else {"clip": clip.numpy()}

    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime recommends to its own callers what is done here
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        if how == "dynamic":
            # ConvInteger takes unsigned weights only, of one scale a layer.
            quantization.quantize_dynamic(
                prepared, out, weight_type=quantization.QuantType.QUInt8, op_types_to_quantize=LAYERS
            )
        else:
            quantization.quantize_static(
                prepared,
                out,
                Reader(),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=LAYERS,
            )


def clips_of(config: Config, count: int, *, train: bool) -> tuple[list[Tensor], list[int]]:
    """One clip (1, 3, T, H, W) for each of `count` videos spread over a list, as validation takes it, and their labels.

    train: of the training list; else of the validation list.

    Raises:
        DataError: they are not where the configuration says.
    """
    if train:
        data = config.dataset
        lists = {"eva_list_file": data.list_file, "eva_root_path": data.root_path}
        config = config.model_copy(update={"dataset": data.model_copy(update=lists)})
    videos = build_dataset(config, train=False)
    chosen = np.linspace(0, len(videos.videos) - 1, min(count, len(videos.videos))).round().astype(int).tolist()
    samples = [videos[video * videos.views] for video in chosen]
    return [normalise(torch.as_tensor(clip)[None]).contiguous() for clip, *_ in samples], [
        label for _, label, *_ in samples
    ]


@torch.inference_mode()
def compare(runners: Mapping[str, Runner], clips: list[Tensor], labels: list[int]) -> dict[str, Comparison]:
    """Each network beside the first, on clips (1, 3, T, H, W) that take turns with all of them."""
    probabilities: dict[str, list[Tensor]] = {name: [] for name in runners}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for run in runners.values():  # not timed: memory is taken, kernels are compiled
        run(clips[0])
    for clip in clips:
        for name, run in runners.items():
            start = time.perf_counter()
            probabilities[name].append(run(clip).clone())
            times[name].append(time.perf_counter() - start)
    first = next(iter(runners))
    expected, truth = torch.cat(probabilities[first]), torch.tensor(labels)
    compared = {}
    for name in runners:
        got = torch.cat(probabilities[name])
        difference = (got - expected).abs()
        compared[name] = Comparison(
            clips=len(clips),
            agreement=_share(got.argmax(1) == expected.argmax(1)),
            difference=difference.mean().item(),
            largest=difference.max().item(),
            ratio=min(times[name]) / min(times[first]),
            right=(_share(expected.argmax(1) == truth), _share(got.argmax(1) == truth)),
        )
    return compared


def _share(hits: Tensor) -> float:
    return 100 * hits.double().mean().item()


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.quantize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="of train_val_3d.py")
    parser.add_argument("--out", type=Path, required=True, help="NAME.onnx")
    parser.add_argument("--int8", choices=("static", "dynamic"), default="static", help="(default: %(default)s)")
    parser.add_argument("--calibrate", type=int, default=64, help="training videos for static (default: %(default)s)")
    parser.add_argument("--videos", type=int, default=200, help="to compare on (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        if args.out.suffix != ".onnx":
            raise UserError(f"--out must end in .onnx, got {args.out}")
        if min(args.calibrate, args.videos) < 1:
            raise UserError("--calibrate and --videos must be at least 1")
        loaded = sifa.load(args.checkpoint)
        check_packages()
        calibration = clips_of(loaded.config, args.calibrate, train=True)[0] if args.int8 == "static" else []
        clips, labels = clips_of(loaded.config, args.videos, train=False)
        with tempfile.TemporaryDirectory() as folder:
            exact = Path(folder) / "exact.onnx"
            export(loaded.model, loaded.frames, loaded.size, exact)
            args.out.parent.mkdir(parents=True, exist_ok=True)
            quantize(exact, args.out, args.int8, calibration)
            result = compare({"float32": onnx_runner(exact), "int8": onnx_runner(args.out)}, clips, labels)["int8"]
            sizes = [file.stat().st_size / 1e6 for file in (exact, args.out)]
    except (UserError, DataError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {args.out} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 2
    print(
        f"{args.out}: {sizes[1]:.1f} MB, float32 {sizes[0]:.1f}; on {result.clips} validation clips the same class as "
        f"float32 in {result.agreement:.1f} %, right {result.right[1]:.1f} % (float32 {result.right[0]:.1f}), "
        f"probabilities {result.difference:.4f} apart on average, {result.largest:.3f} at most; "
        f"{result.ratio:.2f} times its time"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
