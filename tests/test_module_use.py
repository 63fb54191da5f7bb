"""A network with its temporal modules switched off, stage by stage, or with other offsets."""

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.module_use import OFFSET_CHANGES, accuracy, offset_layers, temporal_modules
from models import build_model

CLIPS = [torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8) for _ in range(4)]


def resnet(temporal: str = "sifa") -> Any:
    torch.manual_seed(0)
    return build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=8, temporal=temporal).eval()


def test_the_modules_of_both_copies_of_a_stage_are_found() -> None:
    modules = temporal_modules(resnet())
    assert {stage: len(found) for stage, found in modules.items()} == {"res3": 2, "res4": 3, "res5": 2}
    assert temporal_modules(resnet("none")) == {}


@pytest.mark.parametrize("temporal", ["sifa", "shift"])
def test_a_module_that_is_switched_off_adds_nothing(temporal: str) -> None:
    network, seen = resnet(temporal), []
    block = network.get_submodule("layer2")[1]
    block.conv3.register_forward_hook(lambda _module, _inputs, result: seen.append(result.clone()))
    accuracy(network, CLIPS, [0, 1, 2, 0])
    accuracy(network, CLIPS, [0, 1, 2, 0], without=["res3"])
    block.temporal = None
    accuracy(network, CLIPS, [0, 1, 2, 0])
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])


def test_offsets_become_what_the_change_says() -> None:
    offset = torch.arange(3.0).view(3, 1, 1, 1, 1) + torch.arange(4.0).expand(3, 2, 18, 4, 4)
    zero, one_for_each_tap, of_another_clip = (change(offset) for change in OFFSET_CHANGES.values())
    assert not zero.any()
    assert one_for_each_tap.shape == offset.shape
    assert one_for_each_tap[:, 0, 0, 0, 0].tolist() == [1.5, 2.5, 3.5]
    assert of_another_clip[:, 0, 0, 0, 0].tolist() == [2.0, 0.0, 1.0]


@pytest.mark.parametrize("clips", [CLIPS, CLIPS[:1]])
def test_with_offsets_of_zero_the_neighbourhood_is_regular(clips: list[torch.Tensor]) -> None:
    """The first module with learned offsets gives what a regular one gives, and another result with its own offsets."""
    network, seen = resnet(), []
    module = network.get_submodule("layer2")[1].temporal
    nn.init.normal_(module.offset.weight)
    module.register_forward_hook(lambda _module, _inputs, result: seen.append(result.clone()))
    labels = [0] * len(clips)
    accuracy(network, clips, labels)
    accuracy(network, clips, labels, change=OFFSET_CHANGES["offsets of zero"])
    assert len(list(offset_layers(network))) == 7
    module.offset = None
    accuracy(network, clips, labels)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2])


def test_videos_are_counted_and_no_hook_stays() -> None:
    network = resnet()
    for head in (network.fc, network.fc_dual):
        nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([0.0, 1.0, 0.0])
    assert accuracy(network, CLIPS, [1, 1, 0, 2], without=["res3"]) == 50.0
    assert accuracy(network, CLIPS, [1, 1, 0, 2], change=torch.zeros_like) == 50.0
    assert not any(module._forward_hooks for module in network.modules())
