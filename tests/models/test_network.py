"""What networks tell about themselves, against what they are made of and what they compute."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import metrics
from models import Network, build_model
from models.network import Grid, mean_softmax
from models.sifa import InterFrameAttention
from models.sifa_resnet import ClipBottleneck
from models.sifa_swin import ClipSwinBlock
from models.temporal import STAGES

RESNET, SWIN = "c2d_sifa_resnet50", "c2d_sifa_swin_vit_s_p4_w7"
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "SIFA-Net": (RESNET, {"width": 4}),
    "one head": (RESNET, {"width": 4, "dual_head": False}),
    "SIFA-Transformer": (SWIN, {"width": 6}),
}
DEPTHS = {"SIFA-Net": (3, 4, 6, 3), "one head": (3, 4, 6, 3), "SIFA-Transformer": (2, 2, 18, 2)}

each_network = pytest.mark.parametrize("name", NETWORKS)


def network(name: str, **changes: Any) -> Network:
    net_name, options = NETWORKS[name]
    return build_model(net_name, num_classes=5, clip_length=8, **options, **changes)


@each_network
def test_blocks_are_all_blocks_in_order(name: str) -> None:
    model = network(name)
    assert model.blocks() == [m for m in model.modules() if isinstance(m, ClipBottleneck | ClipSwinBlock)]
    stages = [model.stage_blocks(stage) for stage in STAGES]
    assert [len(blocks) for blocks in stages] == list(DEPTHS[name])
    assert [block for blocks in stages for block in blocks] == model.blocks()[: sum(DEPTHS[name])]


def test_a_second_copy_of_a_stage() -> None:
    model = network("SIFA-Net")
    assert model.duplicated_stages == {"layer4_dual": "layer4"}
    copy = list(model.get_submodule("layer4_dual").children())
    assert model.blocks()[-3:] == copy
    assert not {*copy} & {*model.stage_blocks("res5")}
    assert not network("one head").duplicated_stages
    assert not network("SIFA-Transformer").duplicated_stages


@each_network
def test_sifa_modules_by_stage(name: str) -> None:
    model = network(name, stages=["res3", "res5"])
    assert model.stages_with_sifa() == ["res3", "res5"]
    for stage in STAGES:
        found = [
            (f"block {number}", module)
            for number, block in enumerate(model.stage_blocks(stage), start=1)
            for module in [block.temporal]
            if isinstance(module, InterFrameAttention)
        ]
        assert model.sifa_modules(stage) == found
    assert network(name, temporal="conv").stages_with_sifa() == []


@each_network
def test_parts_hold_every_parameter_once(name: str) -> None:
    model = network(name)
    parts = model.parts()
    parameters = [parameter for part in parts.values() for parameter in part.parameters()]
    assert [id(parameter) for parameter in parameters] == [id(parameter) for parameter in model.parameters()]
    for path, part in parts.items():
        assert model.get_submodule(path) is part


def test_names_of_parts_body_and_classifiers() -> None:
    net, transformer = network("SIFA-Net"), network("SIFA-Transformer")
    stages = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]
    assert list(net.parts()) == [*stages, "fc", "layer4_dual", "fc_dual"]
    assert net.body() == [*stages, "layer4_dual"]
    assert net.classifiers == ("fc", "fc_dual")
    assert network("one head").classifiers == ("fc",)
    layers = ["layers.0", "layers.1", "layers.2", "layers.3"]
    assert list(transformer.parts()) == ["patch_embed", *layers, "norm", "fc"]
    assert transformer.body() == ["patch_embed", "layers", "norm"]
    assert transformer.classifiers == ("fc",)


@each_network
def test_classifiers_make_the_logits(name: str) -> None:
    model = network(name)
    for classifier in model.classifiers:
        nn.init.zeros_(model.get_parameter(f"{classifier}.weight"))
        nn.init.constant_(model.get_parameter(f"{classifier}.bias"), 2.0)
    logits = model(torch.randn(1, 3, 8, 32, 32))
    assert len(logits) == len(model.classifiers)
    assert all((head == 2).all() for head in logits)


@each_network
def test_maps_have_the_described_layout_and_grid(name: str) -> None:
    model = network(name)
    height, width = 64, 96
    outputs: list[Tensor] = []
    for stage in STAGES:
        model.stage_blocks(stage)[-1].register_forward_hook(lambda _m, _i, output: outputs.append(output))
    with torch.no_grad():
        model(torch.randn(1, 3, 8, height, width))
    for stage, output in zip(STAGES, outputs, strict=True):
        grid = model.grid(stage)
        maps = output.movedim(model.channel_axis, 2)
        assert maps.shape[:2] == (1, 2)
        assert maps.shape[3:] == (height // grid.stride, width // grid.stride)


def test_grids() -> None:
    net, transformer = network("SIFA-Net"), network("SIFA-Transformer")
    assert [net.grid(stage) for stage in STAGES] == [Grid(4, 0.0), Grid(8, 0.0), Grid(16, 0.0), Grid(32, 0.0)]
    centres = [Grid(4, 1.5), Grid(8, 3.5), Grid(16, 7.5), Grid(32, 15.5)]
    assert [transformer.grid(stage) for stage in STAGES] == centres


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("heads", [1, 2])
def test_the_prediction_is_the_one_that_is_validated(heads: int, dtype: torch.dtype) -> None:
    """The engine imports no network and has its own function."""
    logits = tuple(10 * torch.randn(3, 7, dtype=dtype) for _ in range(heads))
    assert torch.equal(mean_softmax(logits), metrics.mean_softmax(logits))


@each_network
def test_nothing_is_changed_in_place_through_a_view(name: str) -> None:
    """Autograd copies all that such a view is of, forward and backward."""
    nodes = [head.grad_fn for head in network(name)(torch.randn(1, 3, 8, 32, 32))]
    seen = set(nodes)
    while nodes:
        found = {following for following, _ in nodes.pop().next_functions if following is not None} - seen
        seen |= found
        nodes += found
    names = {node.name().split("::")[-1] for node in seen}
    assert "AccumulateGrad" in names
    assert "CopySlices" not in names
