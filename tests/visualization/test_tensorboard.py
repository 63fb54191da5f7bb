"""What TensorBoard gets of SIFA: histograms of all stages, one picture, and a network that is as it was before."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from datasets import ClipDataset, test_transform
from models import build_model
from visualization.tensorboard import record_attention

CPU = torch.device("cpu")


@pytest.fixture
def dataset(data: Path) -> ClipDataset:
    return ClipDataset(
        *(data / "list.txt", data / "frames"),
        num_classes=3,
        num_segments=1,
        clip_length=8,
        num_steps=1,
        transform=test_transform(32, 0, 1),
        train=False,
    )


def network(**options: Any) -> Any:
    return build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=4, **options)


def recorded(model: Any, dataset: ClipDataset, folder: Path) -> dict[str, list[str]]:
    with SummaryWriter(str(folder)) as events:
        record_attention(events, model, dataset, ["a", "b", "c"], CPU, 1)
    read = EventAccumulator(str(folder))
    read.Reload()
    return read.Tags()


@pytest.mark.parametrize("frozen", [False, True])
def test_histograms_and_a_picture(frozen: bool, dataset: ClipDataset, tmp_path: Path) -> None:
    model = network(offset_init="kaiming").requires_grad_(not frozen)
    model.train()
    state, random = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    tags = recorded(model, dataset, tmp_path)
    assert tags["histograms"] == [f"offset length in pixels/{stage}" for stage in ("res3", "res4", "res5")]
    assert tags["images"] == ["attention"]
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_networks_of_which_there_is_nothing_to_show(dataset: ClipDataset, tmp_path: Path) -> None:
    broken = network()
    torch.nn.init.constant_(broken.fc.weight, float("nan"))
    for number, model in enumerate((broken, network(temporal="none"))):
        assert recorded(model, dataset, tmp_path / str(number))["images"] == []
