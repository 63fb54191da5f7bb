"""Counts without computing, against a network that computes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from models import build_model
from tools import complexity, export, predict, quantize, report, visualize
from tools.complexity import main, measure

SETTINGS = Path(__file__).parents[2] / "settings/c2d_sifa_resnet50-1x16x1.k400.yml"
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


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config_file", str(SETTINGS), "--set", "evaluation.eva_crop_size=256"]) == 0
    lines = capsys.readouterr().out.splitlines()
    total = lines[-2].split()
    assert total[0] == "total"
    assert float(total[1]) == pytest.approx(43.04, abs=0.005)
    assert float(total[3]) == pytest.approx(31.22, rel=0.005)
    assert lines[-1].startswith("one clip of 16 x 256 x 256; its activations in training take ")


@pytest.mark.parametrize("tool", [complexity, export, predict, quantize, report, visualize])
def test_help_names_the_form_that_works(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Of this tool and its neighbours: started as a file, Python would not find the other packages."""
    with pytest.raises(SystemExit) as caught:
        tool.main(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {tool.__name__} [-h]")


def test_a_clip_that_comes_down_to_one_position(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["evaluation.eva_crop_size=8", "dataset.clip_length=8", "dataset.num_steps=2"]
    assert main(["--config_file", str(SETTINGS), "--set", *small]) == 0
    assert "one clip of 8 x 8 x 8; " in capsys.readouterr().out


def test_a_wrong_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config_file", str(SETTINGS), "--set", "network.net_name=resnet50"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: network: net_name must be one of c2d_sifa_resnet50, ")
    assert error.count("\n") == 1
