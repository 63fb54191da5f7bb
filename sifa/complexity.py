"""What a network costs: parameters and multiply-adds by stage, memory of the activations.

Nothing is computed: on the meta device tensors have shapes and no contents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from engine.schema import Config
from models import Network
from sifa.build import build_network


@dataclass(frozen=True)
class Complexity:
    """What one clip (3, frames, size, size) costs.

    Args:
        frames: of the clip.
        size: its height and width in pixels.
        parameters: number by stage.
        multiply_adds: of the forward pass, by stage.
        activations: bytes kept for the backward pass in float32.
    """

    frames: int
    size: int
    parameters: dict[str, int]
    multiply_adds: dict[str, int]
    activations: int

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


def measure_config(config: Config, size: int | None = None) -> Complexity:
    """Measures the network of a configuration with one view of its validation.

    Args:
        size: height and width of the view in pixels, where not the configuration's.

    Raises:
        ConfigError: the configuration describes no network.
    """
    with torch.device("meta"):
        network = build_network(config)
    frames = config.dataset.num_segments * config.dataset.clip_length
    return measure(network, frames, size or config.evaluation.eva_crop_size)


def measure(network: Network, frames: int, size: int) -> Complexity:
    """Measures a network with one clip.

    Args:
        network: on the meta device; it is of no other use afterwards.
        frames: of the clip.
        size: height and width of the clip in pixels.
    """
    clip = torch.empty(1, 3, frames, size, size, device="meta")
    stages = network.parts()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(clip)
    counted = counter.get_flop_counts()
    root = type(network).__name__
    flops = {stage: sum(counted.get(f"{root}.{stage}", {}).values()) for stage in stages}
    left_out = counter.get_total_flops() - sum(flops.values())
    if left_out != 0:
        raise RuntimeError(f"{left_out} operations belong to no stage of {', '.join(stages)}")
    return Complexity(
        frames,
        size,
        {stage: sum(p.numel() for p in module.parameters()) for stage, module in stages.items()},
        {stage: count // 2 for stage, count in flops.items()},
        _activation_bytes(network, clip),
    )


def _activation_bytes(network: Network, clip: Tensor) -> int:
    """Bytes that a training step keeps from the forward to the backward pass, the parameters not counted.

    Where blocks are computed again in the backward pass, it keeps their inputs and the rest of the network.
    """
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # alive, so that no other takes its address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    def keep_input(block: nn.Module, inputs: tuple[Tensor]) -> None:
        keep(inputs[0])

    if network.activation_checkpointing:
        for block in network.blocks():
            block.register_forward_pre_hook(keep_input)
    network.train()
    for module in network.modules():
        # In eval mode it keeps as much, and accepts the single value per channel that a small clip may be reduced to.
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(clip)
        kept_bytes = sum(storage.nbytes() for storage in kept.values())
    del logits
    return kept_bytes
