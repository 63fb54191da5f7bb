"""Parameters, multiply-adds by stage and memory of activations of the network that a settings file describes.

python -m tools.complexity --config_file settings/c2d_sifa_resnet50-1x16x1.k400.yml
python -m tools.complexity --config_file settings/NAME.yml --set evaluation.eva_crop_size=256

Nothing is computed: tensors have shapes and no contents, so that it takes a second whatever the size.
"""

import argparse
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from common.errors import UserError
from engine.config import load_config
from engine.schema import Config
from models.sifa_resnet import ClipBottleneck
from models.sifa_swin import ClipSwinBlock
from sifa.build import build_network


@dataclass(frozen=True)
class Complexity:
    """What one clip (3, frames, size, size) costs."""

    frames: int
    size: int
    parameters: dict[str, int]  # by stage
    multiply_adds: dict[str, int]  # by stage, of the forward pass
    activations: int  # bytes kept for the backward pass in float32

    def table(self) -> str:
        rows = ["stage              parameters        GMACs"]
        for stage, parameters in self.parameters.items():
            rows.append(f"{stage:<14}{parameters / 1e6:>12.3f} M {self.multiply_adds[stage] / 1e9:>12.3f}")
        total = sum(self.parameters.values()) / 1e6
        rows.append(f"{'total':<14}{total:>12.3f} M {sum(self.multiply_adds.values()) / 1e9:>12.3f}")
        rows.append(
            f"one clip of {self.frames} x {self.size} x {self.size}; its activations in training take "
            f"{self.activations / 2**30:.2f} GiB in float32"
        )
        return "\n".join(rows)


def measure(model: nn.Module, frames: int, size: int) -> Complexity:
    """Counts for one clip.

    Args:
        model: a network on the meta device.
        frames: of the clip.
        size: its height and width.
    """
    clip = torch.empty(1, 3, frames, size, size, device="meta")
    stages = _stages(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(clip)
    counted = counter.get_flop_counts()
    root = type(model).__name__
    flops = {stage: sum(counted.get(f"{root}.{stage}", {}).values()) for stage in stages}
    left_out = counter.get_total_flops() - sum(flops.values())
    if left_out != 0:
        raise RuntimeError(f"{left_out} operations belong to no stage of {', '.join(stages)}")
    return Complexity(
        frames,
        size,
        {stage: sum(p.numel() for p in module.parameters()) for stage, module in stages.items()},
        {stage: count // 2 for stage, count in flops.items()},
        _activations(model, clip),
    )


def _stages(model: nn.Module) -> dict[str, nn.Module]:
    """The network's children that have parameters; lists of stages by their members."""
    stages: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        parts = child.named_children() if isinstance(child, nn.ModuleList) else [("", child)]
        stages |= {f"{name}.{part}".rstrip("."): module for part, module in parts}
    return {name: module for name, module in stages.items() if any(True for _ in module.parameters())}


def _activations(model: nn.Module, clip: Tensor) -> int:
    """Bytes that a training step keeps from the forward to the backward pass, the parameters not counted.

    Where blocks are computed again in the backward pass, it is their inputs and the rest of the network.
    """
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # alive, so that no other takes its address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    def remember(block: nn.Module, inputs: tuple[Tensor]) -> None:
        keep(inputs[0])

    if getattr(model, "activation_checkpointing", False):
        for block in model.modules():
            if isinstance(block, (ClipBottleneck, ClipSwinBlock)):
                block.register_forward_pre_hook(remember)
    model.train()
    for module in model.modules():
        # With the statistics that it has it keeps as much, and takes the one value that a small clip may come down to.
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(clip)
        kept_bytes = sum(storage.nbytes() for storage in kept.values())
    del logits
    return kept_bytes


def of_config(config: Config, size: int | None = None) -> Complexity:
    """Counts for one view of a configuration's validation, or for another size."""
    with torch.device("meta"):
        model = build_network(config)
    frames = config.dataset.num_segments * config.dataset.clip_length
    return measure(model, frames, size or config.evaluation.eva_crop_size)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.complexity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config_file", required=True, help="a file of settings/")
    parser.add_argument("--set", nargs="+", action="append", default=[], metavar="section.key=value")
    args = parser.parse_args(argv)
    try:
        config = load_config(args.config_file, [change for group in args.set for change in group])
        print(f"{config.network.net_name}\n{of_config(config).table()}")
        return 0
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
