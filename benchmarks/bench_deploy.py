"""Compares the formats in which a network can be deployed: size, time, agreement with PyTorch.

    python -m benchmarks.bench_deploy --checkpoint output/demo/checkpoints/last.pth --out benchmarks/results/deploy.md
    python -m benchmarks.bench_deploy --config_file settings/c2d_sifa_resnet50-1x16x1.k400.yml --clips 5

The network of a checkpoint classifies validation videos. The network of a settings file has random weights and gets
random clips: its times are meaningful, its agreement is not. The formats take turns on one clip at a time. The time is
that of the fastest run, because other work on a shared machine only adds time, as a multiple of PyTorch's time. The
size is that of the file, or of the weights for PyTorch. Needs `pip install onnx onnxscript onnxruntime`.
"""

import argparse
import platform
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import sifa
from common.errors import DataError, UserError
from engine.config import load_config
from engine.schema import Config
from models import Network
from models.inference import Probabilities
from sifa.build import build_network
from sifa.export import Runner, check_packages, export_network, onnx_runner, program_runner
from sifa.quantization import compare, quantize, sample_clips

HEADER = (
    "| format | size, MB | time | same class, % | correct, % | difference of probabilities, mean | maximum |\n"
    + 7 * "|---"
    + "|"
)


def measure(network: Network, clips: list[Tensor], labels: list[int], calibration: list[Tensor], threads: int) -> str:
    """The lines of the table for one network."""
    frames, crop_size = clips[0].shape[2], clips[0].shape[-1]
    eager = Probabilities(network).eval()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}" for name in ("program.pt2", "f32.onnx", "dynamic.onnx", "static.onnx")}
        export_network(network, frames, crop_size, files["program.pt2"])
        export_network(network, frames, crop_size, files["f32.onnx"])
        quantize(files["f32.onnx"], files["dynamic.onnx"], "dynamic", [])
        quantize(files["f32.onnx"], files["static.onnx"], "static", calibration)
        runners: dict[str, Runner] = {
            "PyTorch, cuda_sifa": eager,
            "torch.compile": torch.compile(eager),
            "torch.export": program_runner(files["program.pt2"]),
            "ONNX float32": onnx_runner(files["f32.onnx"], threads),
            "ONNX int8 dynamic": onnx_runner(files["dynamic.onnx"], threads),
            "ONNX int8 static": onnx_runner(files["static.onnx"], threads),
        }
        sizes = [sum(value.nbytes for value in network.state_dict().values())] * 2
        sizes += [file.stat().st_size for file in files.values()]
        rows = compare(runners, clips, labels)
    return "\n".join(
        f"| {name} | {size / 1e6:.1f} | {row.ratio:.2f} | {row.agreement:.1f} | {row.right[1]:.1f} | "
        f"{row.difference:.1e} | {row.largest:.1e} |"
        for (name, row), size in zip(rows.items(), sizes, strict=True)
    )


def inputs(
    checkpoint: Path | None, config_file: str, count: int
) -> tuple[Network, Config, list[Tensor], list[int], list[Tensor]]:
    """Network, configuration, clips, their labels, and clips to calibrate with."""
    if checkpoint:
        loaded = sifa.load(checkpoint)
        config = loaded.config
        return loaded.model, config, *sample_clips(config, count, train=False), sample_clips(config, 64, train=True)[0]
    config = load_config(config_file)
    frames, size = config.dataset.num_segments * config.dataset.clip_length, config.evaluation.eva_crop_size
    clips = [torch.randn(1, 3, frames, size, size) for _ in range(count)]
    return build_network(config).eval(), config, clips, [0] * count, clips[:2]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_deploy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, help="of train_val_3d.py")
    what.add_argument("--config_file", help="a file of settings/")
    parser.add_argument("--clips", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also append the table to this file, as Markdown")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    try:
        check_packages()
        import onnxruntime

        if min(args.clips, args.threads) < 1:
            raise UserError(f"--clips and --threads must be at least 1, got {args.clips} and {args.threads}")
        torch.set_num_threads(args.threads)
        network, config, clips, labels, calibration = inputs(args.checkpoint, args.config_file, args.clips)
        table = measure(network, clips, labels, calibration, args.threads)
    except (UserError, DataError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    name, size = config.network.net_name, " x ".join(map(str, clips[0].shape[2:]))
    width = f", width {config.network.width}" if config.network.width else ""
    trained = f"{len(clips)} validation clips" if args.checkpoint else f"random weights, {len(clips)} random clips"
    text = (
        f"{name}{width}, clips of {size}: {trained}; {platform.machine()}, {args.threads} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, "
        f"onnxruntime {onnxruntime.__version__}\n\n{HEADER}\n{table}\n"
    )
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
