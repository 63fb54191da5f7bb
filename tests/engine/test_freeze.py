"""Frozen parameters: which train in which epoch, what their BatchNorm does meanwhile, on one process and on two."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.errors import UserError
from datasets import normalise
from engine.distributed import Process
from engine.metrics import loss_over_heads
from engine.optim import build_optimizer, freeze
from engine.parallel import wrap_ddp
from engine.schema import Optimization
from tests.engine.runs import config_of, new_training, train_one_epoch

EPOCHS, CLIPS = 4, 8
BODY = {"freeze": ["body.*", "norm.*"]}


class Network(nn.Module):
    """A body with BatchNorm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.fc = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        return (self.fc(self.norm(self.body(clip.mean(2))).mean((2, 3))),)


def settings(**changes: Any) -> Optimization:
    return Optimization(epochs=EPOCHS, batch_size=CLIPS, warmup_epoch=0, base_learning_rate=0.1, **changes)


def batch() -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(256, (CLIPS, 2, 3, 3, 3), generator=generator, dtype=torch.uint8)
    return [(clips, torch.arange(CLIPS) % 2, torch.arange(CLIPS))]


def epochs(options: Optimization) -> list[dict[str, Tensor]]:
    """The network's state before each epoch and after the last."""
    torch.manual_seed(0)
    model, config = Network(), config_of(options)
    training = new_training(model, config, 1)
    states = [{name: value.clone() for name, value in model.state_dict().items()}]
    for epoch in range(EPOCHS):
        freeze(model, options, epoch)
        train_one_epoch(training, batch(), config)
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    return states


def test_the_head_alone_then_everything() -> None:
    states = epochs(settings(**BODY, freeze_epochs=2))
    for epoch, (before, after) in enumerate(pairwise(states)):
        moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
        # Momentum and weight decay move nothing either, nor does BatchNorm count its batches.
        assert moved == ({"fc"} if epoch < 2 else {"body", "norm", "fc"}), epoch


def test_without_an_end_they_stay_frozen() -> None:
    states = epochs(settings(**BODY))
    for name, value in states[-1].items():
        assert torch.equal(value, states[0][name]) == (not name.startswith("fc")), name


def test_a_norm_of_which_a_parameter_trains_keeps_counting() -> None:
    states = epochs(settings(freeze=["body.*", "norm.weight"]))
    assert not torch.equal(states[-1]["norm.running_mean"], states[0]["norm.running_mean"])
    assert torch.equal(states[-1]["norm.weight"], states[0]["norm.weight"])


def test_frozen_batch_norm_alone() -> None:
    states = epochs(settings(batch_norm="frozen"))
    for name, value in states[-1].items():
        assert torch.equal(value, states[0][name]) == name.startswith("norm"), name


def test_whether_something_changed() -> None:
    model, options = Network(), settings(**BODY, freeze_epochs=2)
    assert [freeze(model, options, epoch) for epoch in range(4)] == [True, False, True, False]
    assert not freeze(Network(), options, 2), "resumed when all train"
    assert not freeze(Network(), settings(), 0)


def test_errors() -> None:
    with pytest.raises(
        UserError, match=r"optimization.freeze: no parameter is named like backbone\.\*; there are body"
    ):
        freeze(Network(), settings(freeze=["fc.*", "backbone.*"]), 0)
    with pytest.raises(UserError, match=r"optimization.freeze: \*.weight, \*.bias leaves no parameter to train"):
        freeze(Network(), settings(freeze=["*.weight", "*.bias"]), 0)


def _steps(rank: int, world: int, options: Optimization) -> nn.Module:
    """As train_val_3d.py goes on, on this process's share of a batch; BatchNorm in eval, as shares have other means."""
    torch.manual_seed(0)
    model, process = Network().eval(), Process(rank, world, torch.device("cpu"))
    ((frames, labels, _),) = batch()
    clips = normalise(frames)
    optimizer = build_optimizer(model, options)
    wrapped = wrap_ddp(model, process)
    for epoch in range(EPOCHS):
        if freeze(model, options, epoch):
            wrapped = wrap_ddp(model, process)
        for _ in range(2):
            loss_over_heads(wrapped(clips[rank::world]), labels[rank::world]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return model


def _worker(rank: int, folder: str, options: Optimization) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(_steps(rank, 2, options).state_dict(), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    options = settings(**BODY, freeze_epochs=2)
    torch.multiprocessing.spawn(_worker, args=(str(tmp_path), options), nprocs=2)
    expected = _steps(0, 1, options).state_dict()
    zero, one = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    for name, value in expected.items():
        assert torch.equal(zero[name], one[name]), name
        assert torch.allclose(zero[name], value, atol=1e-6), name
    torch.manual_seed(0)
    start = Network().body.weight
    assert not torch.allclose(expected["body.weight"], start, atol=1e-3), "the body trained in the end"
