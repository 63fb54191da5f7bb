"""What TensorBoard gets of SIFA: histograms of all stages, one picture, and a network that is as it was before."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from models import Network, build_model
from tests.tiny import moving_square
from visualization.tensorboard import record_attention


def network(**options: Any) -> Network:
    return build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=4, **options)


def recorded(model: Network, folder: Path, frames: int = 8) -> dict[str, list[str]]:
    """The tags of what is written for a clip of a moving square."""
    video = moving_square(frames, 32, 32)
    clip = torch.from_numpy(video.astype(np.float32) / 255 - 0.5).permute(3, 0, 1, 2)[None]
    with SummaryWriter(str(folder)) as events:
        record_attention(events, model, clip, video, title="a.mp4", label=1, classes=["a", "b", "c"], epoch=1)
    read = EventAccumulator(str(folder))
    read.Reload()
    return read.Tags()


@pytest.mark.parametrize("frozen", [False, True])
def test_histograms_and_a_picture(frozen: bool, tmp_path: Path) -> None:
    model = network(offset_init="kaiming").requires_grad_(not frozen)
    model.train()
    state, random = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    tags = recorded(model, tmp_path)
    assert tags["histograms"] == [f"offset length in pixels/{stage}" for stage in ("res3", "res4", "res5")]
    assert tags["images"] == ["attention"]
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_networks_of_which_there_is_nothing_to_show(tmp_path: Path) -> None:
    broken = network()
    torch.nn.init.constant_(broken.get_parameter("fc.weight"), float("nan"))
    for number, model in enumerate((broken, network(temporal="none"))):
        assert recorded(model, tmp_path / str(number))["images"] == []
    single = network(dual_head=False)
    assert recorded(single, tmp_path / "single", frames=4)["images"] == []
