"""Counts without computing, against a network that computes."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from models import build_model
from sifa.complexity import measure

SIFA_NET, TRANSFORMER = "c2d_sifa_resnet50", "c2d_sifa_swin_vit_s_p4_w7"


def saved_bytes(model: nn.Module, clip: Tensor) -> int:
    """What autograd really keeps, by address."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model.train()(clip)
        kept_bytes = sum(storage.nbytes() for storage in kept.values())
    del logits
    return kept_bytes


@pytest.mark.parametrize(("net_name", "width"), [(SIFA_NET, 8), (TRANSFORMER, 6)])
def test_counts_are_those_of_a_network_that_runs(net_name: str, width: int) -> None:
    with torch.device("meta"):
        counted = measure(build_model(net_name, num_classes=10, clip_length=8, width=width), 8, 64)
    model = build_model(net_name, num_classes=10, clip_length=8, width=width).eval()
    clip = torch.randn(1, 3, 8, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clip)
    assert sum(counted.multiply_adds.values()) == counter.get_total_flops() // 2
    assert sum(counted.parameters.values()) == sum(p.numel() for p in model.parameters())
    assert counted.activations == pytest.approx(saved_bytes(model, clip), rel=0.02)


def test_stages_of_both_networks() -> None:
    with torch.device("meta"):
        net = measure(build_model(SIFA_NET, num_classes=10, clip_length=8, width=8), 8, 64)
        transformer = measure(build_model(TRANSFORMER, num_classes=10, clip_length=8, width=6), 8, 64)
    assert list(net.parameters) == [
        "conv1",
        "bn1",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
        "fc",
        "layer4_dual",
        "fc_dual",
    ]
    assert list(transformer.parameters) == ["patch_embed", "layers.0", "layers.1", "layers.2", "layers.3", "norm", "fc"]
    assert all(transformer.multiply_adds[stage] > 0 for stage in transformer.parameters if stage != "norm")


def test_recomputed_blocks_keep_their_inputs_only() -> None:
    kept = []
    for recompute in (False, True):
        with torch.device("meta"):
            model = build_model(TRANSFORMER, num_classes=10, clip_length=8, width=6, activation_checkpointing=recompute)
        kept.append(measure(model, 8, 64).activations)
    inputs = sum(depth * 2 * (16 // 2**i) ** 2 * 6 * 2**i * 4 for i, depth in enumerate((2, 2, 18, 2)))  # bytes
    clip = 3 * 8 * 64 * 64 * 4  # the stem's
    assert clip + inputs < kept[1] < clip + 2 * inputs
    assert kept[0] > clip + 10 * inputs
