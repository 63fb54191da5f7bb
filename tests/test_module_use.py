"""A network with its temporal modules switched off, stage by stage, or with other offsets."""

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.module_use import OFFSET_CHANGES, accuracy, recorded_offsets, temporal_modules
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
    place = torch.arange(16.0).view(4, 4)
    offsets = torch.tensor([0.0, 3.0, 6.0]).view(3, 1, 1, 1, 1) + place.expand(3, 2, 18, 4, 4)
    changed = {name: change(offsets) for name, change in OFFSET_CHANGES.items()}
    assert all(other.shape == offsets.shape for other in changed.values())
    assert changed["offsets of another clip"][:, 0, 0, 0, 0].tolist() == [6, 0, 3]
    assert torch.equal(changed["offsets of the place"][1, 1, 5], place + 3)
    assert (changed["one offset for each tap"] == 7.5 + 3).all()
    assert not changed["offsets of zero"].any()


def test_with_its_own_offsets_again_a_network_answers_the_same_and_with_zeros_it_is_regular() -> None:
    """Over two batches, of which the last is one clip; the first module with learned offsets stands for all."""
    network, seen = resnet(), []
    module = network.get_submodule("layer2")[1].temporal
    nn.init.normal_(module.offset.weight)
    module.register_forward_hook(lambda _module, _inputs, result: seen.append(result.clone()))
    clips, labels = [*CLIPS * 4, CLIPS[0]], [0] * 17
    own = recorded_offsets(network, clips)
    assert len(own) == 6  # of seven: that of the copy of res5 sees one frame, the maximum of two
    assert own["layer2.1.temporal"].shape == (17, 1, 18, 4, 4)
    accuracy(network, clips, labels, offsets=own)
    accuracy(network, clips, labels, offsets={path: torch.zeros_like(of) for path, of in own.items()})
    module.offset = None
    accuracy(network, clips, labels)
    first, again, zeros, regular = (torch.cat(seen[i : i + 2]) for i in range(0, 8, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, zeros)
    assert torch.equal(zeros, regular)


def test_videos_are_counted_and_no_hook_stays() -> None:
    network = resnet()
    for head in (network.fc, network.fc_dual):
        nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([0.0, 1.0, 0.0])
    assert accuracy(network, CLIPS, [1, 1, 0, 2], without=["res3"]) == 50.0
    assert accuracy(network, CLIPS, [1, 1, 0, 2], offsets=recorded_offsets(network, CLIPS)) == 50.0
    assert not any(module._forward_hooks for module in network.modules())
