"""The learning rate of every iteration, and what the optimiser is given."""

import json
from pathlib import Path

import pytest
import torch

from engine.optim import build_optimizer, build_scheduler, learning_rate_at
from engine.schema import Optimization

GOLDEN = json.loads((Path(__file__).parents[1] / "data/training.json").read_text())["schedule"]


def settings_of(golden: dict) -> Optimization:
    keys = "base_learning_rate", "epochs", "warmup_epoch", "warmup_multiplier"
    return Optimization(**{key: golden[key] for key in keys})


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"{golden['epochs']} epochs")
def test_the_releases_learning_rates(golden: dict) -> None:
    settings = settings_of(golden)
    rate = learning_rate_at(settings, golden["iterations_per_epoch"])
    expected = golden["learning_rate"]
    assert len(expected) == golden["epochs"] * golden["iterations_per_epoch"]
    assert [rate(i) for i in range(len(expected))] == pytest.approx(expected, rel=1e-12)

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=settings.base_learning_rate)
    scheduler = build_scheduler(optimizer, settings, golden["iterations_per_epoch"])
    seen = []
    for _ in expected:
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_the_cosine_begins_at_once() -> None:
    rate = learning_rate_at(Optimization(epochs=2, warmup_epoch=0, base_learning_rate=1.0, min_learning_rate=0.0), 2)
    assert [rate(i) for i in range(5)] == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)


def test_sgd_is_as_configured() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(model, Optimization(momentum=0.8, weight_decay=0.01, nesterov=True))
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.SGD)
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.8, 0.01, True)
    assert len(group["params"]) == 2
