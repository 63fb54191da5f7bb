"""The state of a training: what is saved goes on to the bit, at an epoch's end and within it."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.batch_norm import precise_batch_norm
from engine.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from engine.distributed import Process
from engine.ema import EMA
from engine.optim import learning_rate_at
from engine.schema import Config, Optimization
from engine.signals import Interrupted
from engine.state import TrainState
from tests.engine.runs import ALONE, config_of, new_training, train_one_epoch

ITERATIONS = 6


class Network(nn.Module):
    """BatchNorm and dropout: statistics and random numbers that a resumed run must have."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body, self.norm, self.drop = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Dropout(0.5)
        self.fc = nn.Linear(5, classes)

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        return (self.fc(self.drop(self.norm(self.body(clip.mean(2))).mean((2, 3)))),)


def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(256, (4 * ITERATIONS, 2, 3, 3, 3), generator=generator, dtype=torch.uint8)
    return [(clip, torch.arange(4) % 3, torch.arange(4)) for clip in clips.split(4)]


def configuration(amp: str = "none", **options: Any) -> Config:
    return config_of(Optimization(epochs=3, batch_size=4, base_learning_rate=0.1, **options), amp)


def fresh(config: Config, classes: int = 3) -> TrainState:
    torch.manual_seed(0)
    return new_training(Network(classes), config, ITERATIONS)


FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation": {"iter_size": 2},
    "average": {"ema_decay": 0.9},
    "scaler": {"amp": "fp16"},
    "adamw": {"optimizer": "adamw"},
}


@pytest.mark.parametrize("stop_after", [2, 4, ITERATIONS])
@pytest.mark.parametrize("form", FORMS)
def test_a_resumed_run_goes_on_as_if_never_stopped(form: str, stop_after: int, tmp_path: Path) -> None:
    config = configuration(**FORMS[form])
    one = fresh(config)
    first = [train_one_epoch(one, batches(), config) for _ in range(2)]

    two = fresh(config)
    path = tmp_path / "a.pth"
    options: dict[str, Any] = {
        "save": lambda: save_checkpoint(path, two.checkpoint_entries()),
        "asked_to_stop": lambda: two.iteration == stop_after,
    }
    if stop_after < ITERATIONS:
        with pytest.raises(Interrupted):
            train_one_epoch(two, batches(), config, **options)
    else:
        train_one_epoch(two, batches(), config)
        save_checkpoint(path, two.checkpoint_entries())

    three = fresh(config)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    three.resume(path, read_checkpoint(path), ALONE)
    assert (three.epoch, three.iteration) == divmod(stop_after, ITERATIONS)
    again = []
    while three.epoch < 2:
        again.append(train_one_epoch(three, batches()[three.iteration :], config))
    assert again == first[-len(again) :]
    assert_equal(one, three)
    assert torch.rand(1) == _after(one, config)


def _after(one: TrainState, config: Config) -> Tensor:
    """The random number that follows two epochs that were never stopped."""
    again = fresh(config)
    for _ in range(2):
        train_one_epoch(again, batches(), config)
    return torch.rand(1)


def assert_equal(one: TrainState, other: TrainState) -> None:
    for a, b in zip(_tensors(one.checkpoint_entries()), _tensors(other.checkpoint_entries()), strict=True):
        assert torch.equal(a, b)
    assert one.scaler.state_dict() == other.scaler.state_dict()


def _tensors(contents: dict[str, Any]) -> list[Tensor]:
    found = [*contents["model"].values(), *contents.get("ema", {}).values()]
    for state in contents["optimizer"]["state"].values():
        found += [value for value in state.values() if isinstance(value, Tensor)]
    return found


def test_a_resumed_run_follows_the_present_settings(tmp_path: Path) -> None:
    """Rate, momentum and decay are those of the configuration from the resume on, by its own schedule."""
    path, before = tmp_path / "a.pth", configuration(momentum=0.5, weight_decay=0.1)
    one = fresh(before)
    train_one_epoch(one, batches(), before)
    save_checkpoint(path, one.checkpoint_entries())

    now = before.optimization.model_copy(update={"base_learning_rate": 0.003, "epochs": 5, "momentum": 0.9})
    config = before.model_copy(update={"optimization": now})
    two = fresh(config)
    resume(two, path)
    expected, rates = learning_rate_at(now, ITERATIONS), [two.optimizer.param_groups[0]["lr"]]
    assert (two.optimizer.param_groups[0]["momentum"], two.optimizer.param_groups[0]["weight_decay"]) == (0.9, 0.1)
    for _ in range(ITERATIONS):
        two.scheduler.step()
        rates.append(two.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([expected(ITERATIONS + i) for i in range(ITERATIONS + 1)])


def test_another_class_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", fresh(configuration()).checkpoint_entries())
    with pytest.raises(CheckpointError, match=r"a\.pth does not fit this model: .*fc\.weight") as caught:
        resume(fresh(configuration(), classes=4), tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


def resume(training: TrainState, path: Path, process: Process = ALONE) -> None:
    training.resume(path, read_checkpoint(path), process)


def test_what_a_checkpoint_must_share_with_the_run(tmp_path: Path) -> None:
    path, config = tmp_path / "a.pth", configuration()
    save_checkpoint(path, fresh(config).checkpoint_entries())
    with pytest.raises(CheckpointError, match="6 iterations an epoch, this one has 7"):
        resume(new_training(Network(), config, 7), path)
    with pytest.raises(CheckpointError, match="of 1 processes, this run has 2"):
        resume(fresh(config), path, Process(1, 2, torch.device("cpu")))
    with pytest.raises(CheckpointError, match=r"has no average of the weights: .* optimization\.ema_decay"):
        resume(fresh(configuration(ema_decay=0.9)), path)


def test_the_average_of_weights_follows_the_formula() -> None:
    linear, norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)
    model, weight, counter = nn.Sequential(linear, norm), linear.weight, norm.num_batches_tracked
    assert counter is not None
    with torch.no_grad():
        weight.fill_(1.0)
    average, expected = EMA(model, 0.5), 1.0
    for n in range(20):
        with torch.no_grad():
            weight.fill_(float(n))
            counter.fill_(n)
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    with average.applied():
        assert weight.item() == pytest.approx(expected)
        assert counter.item() == 19, "a counter has no mean"
    assert weight.item() == 19.0


def test_precise_statistics_are_the_mean_over_the_batches() -> None:
    model, data = Network(), [clip.float().permute(0, 4, 1, 2, 3) / 255 for clip, _, _ in batches()]
    model.body.requires_grad_(False)
    state = torch.get_rng_state()
    precise_batch_norm(model, data, 4)
    assert torch.equal(torch.get_rng_state(), state)
    maps = [model.body(clip.mean(2)) for clip in data[:4]]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    variance = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
    assert model.norm.running_mean is not None
    assert model.norm.running_var is not None
    assert torch.allclose(model.norm.running_mean, mean, atol=1e-6)
    assert torch.allclose(model.norm.running_var, variance, atol=1e-6)
    assert model.norm.momentum == 0.1


def test_precise_statistics_leave_frozen_norms_alone() -> None:
    model = Network()
    model.norm.requires_grad_(False)
    precise_batch_norm(model, [torch.ones(2, 3, 2, 3, 3)], 1)
    assert model.norm.running_mean is not None
    assert model.norm.running_mean.tolist() == [0.0] * 5
