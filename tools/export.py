"""Write a trained network for other runtimes: ONNX, or PyTorch's own exported program.

    python -m tools.export --checkpoint output/demo/checkpoints/last.pth --out demo.onnx [--crop_size 64]
    python -m tools.export --checkpoint output/demo/checkpoints/last.pth --out demo.pt2

The batch may have any size, frames and crop are fixed. The file takes clips (N, 3, T, H, W), normalised as in training,
and gives the softmax that validation averages, (N, classes). An ONNX file holds standard operators only; it is run by
ONNX Runtime beside PyTorch on random clips before it counts as written. Exit code: 0, or 2 if something is wrong.
"""

import argparse
import copy
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import cuda_sifa
from cuda_sifa import decomposition
from engine.build import build_network
from engine.checkpoint import entry, load_weights, read_checkpoint
from engine.config import ConfigError
from engine.errors import UserError
from engine.metrics import mean_softmax
from engine.schema import Config

TOLERANCE = 1e-4  # relative to the largest probability


class Probabilities(nn.Module):
    """A network and the mean of its heads' softmaxes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Tensor:
        return mean_softmax(self.network(clip))


def load_network(checkpoint: Path) -> tuple[nn.Module, Config]:
    """The network of a checkpoint of ours, in eval mode, and the configuration it was trained with."""
    contents = read_checkpoint(checkpoint)
    try:
        config = Config.model_validate(entry(contents, "config", checkpoint))
    except ValueError as error:
        raise ConfigError(f"checkpoint {checkpoint} is of another version: {' '.join(str(error).split())}") from None
    network = build_network(config)
    load_weights(network, entry(contents, "model", checkpoint), checkpoint)
    return network.eval(), config


def export_program(network: nn.Module, frames: int, crop_size: int) -> torch.export.ExportedProgram:
    """The network as a graph for any batch size; the op is one node of it."""
    clips = torch.randn(2, 3, frames, crop_size, crop_size)
    return torch.export.export(
        Probabilities(network).eval(),
        (clips,),
        dynamic_shapes={"clip": {0: torch.export.Dim("batch", min=1, max=4096)}},
    )


def export_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes an exported program as ONNX in standard operators, the op in terms of GridSample."""
    table = torch.export.default_decompositions()
    if cuda_sifa.library.devices:
        table[torch.ops.sifa.inter_frame_attention.default] = decomposition.inter_frame_attention
    plain = program.run_decompositions(table)
    torch.onnx.export(plain, f=str(path), input_names=["clip"], output_names=["probabilities"], external_data=False)


@torch.no_grad()
def largest_difference(path: Path, network: nn.Module, frames: int, crop_size: int) -> tuple[float, float]:
    """On random clips in batches of 1 and 3, relative to the largest probability.

    Returns how much ONNX Runtime differs from PyTorch, and how much PyTorch differs from itself in float64: what the
    roundings of float32 alone do to this network.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    exact_network = copy.deepcopy(network).double()
    difference = rounding = 0.0
    for batch in (1, 3):
        clips = torch.randn(batch, 3, frames, crop_size, crop_size)
        expected, exact = mean_softmax(network(clips)), mean_softmax(exact_network(clips.double()))
        (result,) = session.run(None, {session.get_inputs()[0].name: clips.numpy()})
        difference = max(difference, ((torch.from_numpy(result) - expected).abs().max() / expected.max()).item())
        rounding = max(rounding, ((expected - exact).abs().max() / expected.max()).item())
    return difference, rounding


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of train_val_3d.py")
    parser.add_argument("--out", type=Path, required=True, help="NAME.onnx, or NAME.pt2 for torch.export")
    parser.add_argument("--crop_size", type=int, help="pixels (default: as in validation)")
    args = parser.parse_args(argv)
    try:
        if args.out.suffix not in (".onnx", ".pt2"):
            raise UserError(f"--out must end in .onnx or .pt2, got {args.out}")
        network, config = load_network(args.checkpoint)
        frames = config.dataset.num_segments * config.dataset.clip_length
        crop_size = args.crop_size or config.evaluation.eva_crop_size
        program = export_program(network, frames, crop_size)
        if args.out.suffix == ".pt2":
            torch.export.save(program, str(args.out))
            print(f"{args.out}: clips (N, 3, {frames}, {crop_size}, {crop_size}); load it with cuda_sifa imported")
            return 0
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise UserError(f"{error.name} is missing: pip install onnx onnxscript onnxruntime") from None
        export_onnx(program, args.out)
        difference, rounding = largest_difference(args.out, network, frames, crop_size)
        if difference > max(TOLERANCE, 4 * rounding):
            raise UserError(
                f"{args.out} gives other results than PyTorch: they differ by {difference:.1e}, the roundings of "
                f"float32 explain {rounding:.1e}"
            )
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(
        f"{args.out}: clips (N, 3, {frames}, {crop_size}, {crop_size}), {args.out.stat().st_size / 1e6:.1f} MB, in "
        f"ONNX Runtime equal to PyTorch within {difference:.1e}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
