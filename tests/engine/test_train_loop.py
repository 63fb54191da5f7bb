"""An epoch of training and a validation on a network small enough to follow, and the shares of several processes."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from datasets import normalise
from engine.divergence import Diverged
from engine.meters import Progress
from engine.metrics import Metrics
from engine.samplers import TrainSampler
from engine.schema import Optimization
from engine.signals import Interrupted
from tests.engine.runs import ALONE, CLASSES, Clips, Heads, config_of, new_training, train_one_epoch


def train(model: nn.Module, settings: Optimization, reports: list[Progress] | None = None, **options: Any) -> Metrics:
    data, config = Clips(24), config_of(settings, **options.pop("config", {}))
    sampler = TrainSampler(24, ALONE, batch_size=settings.batch_size, iter_size=settings.iter_size, seed=0)
    loader = DataLoader(data, batch_size=settings.batch_size, sampler=sampler)
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    training = new_training(bare, config, len(loader))
    report = reports.append if reports is not None else lambda progress: None
    return train_one_epoch(training, loader, config, network=model, report=report, **options)


def flat(optimization: dict[str, Any]) -> Optimization:
    """Settings with a learning rate that stays."""
    return Optimization(
        epochs=10**6, warmup_epoch=0, base_learning_rate=0.1, **{"momentum": 0.9, "clip_gradient": 0.0, **optimization}
    )


def test_accumulated_iterations_equal_one_large_batch() -> None:
    whole, parts = Heads(), Heads()
    parts.load_state_dict(whole.state_dict())
    one = train(whole, flat({"batch_size": 12, "iter_size": 1}))
    other = train(parts, flat({"batch_size": 3, "iter_size": 4}))
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert one.videos == other.videos == 24


def test_the_loss_weight_and_the_clipping_act_on_the_gradient() -> None:
    """A single step of plain SGD moves the weights by learning rate times the clipped gradient."""
    moves = {}
    for name, options in {
        "plain": {},
        "weighted": {"loss_weight": 3.0},
        "clipped": {"loss_weight": 3.0, "clip_gradient": 0.01},
    }.items():
        torch.manual_seed(0)
        model = Heads()
        before = [p.detach().clone() for p in model.parameters()]
        train(model, flat({"batch_size": 24, "momentum": 0.0, "weight_decay": 0.0, **options}))
        moves[name] = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
    assert torch.allclose(moves["weighted"], 3 * moves["plain"], rtol=1e-4, atol=1e-7)
    assert moves["clipped"].norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_the_metrics_of_an_epoch_and_its_reports() -> None:
    model, data = Heads(), Clips(24)
    reports: list[Progress] = []
    with torch.no_grad():
        losses = sum(nn.functional.cross_entropy(head, data.labels) for head in model(normalise(data.clips)))
    frozen = flat({"batch_size": 4}).model_copy(update={"base_learning_rate": 1e-12})
    metrics = train(model, frozen, reports)
    assert metrics.loss == pytest.approx(float(losses) / 2, rel=1e-5), "the mean over the heads"
    assert [(progress.iteration, progress.of) for progress in reports] == [(2, 6), (4, 6)]
    for word in ("2/6  loss ", "lr 1.00e-12", "clips/s", "waited ", "GiB"):
        assert word in str(reports[0])
    assert all(progress.gradient_norm > 0 and progress.memory > 0 for progress in reports)


def test_mixed_clips_are_trained_on_and_scored_by_their_labels() -> None:
    places, settings = [], flat({"batch_size": 6, "loss_weight": 1e-12, "weight_decay": 0.0})

    def mix(clip: Tensor, label: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
        places.append(iteration)
        return torch.zeros_like(clip), torch.full((len(clip), CLASSES), 1 / CLASSES)

    model = Heads()
    nothing = torch.zeros(1, 3, 2, 2, 2)
    logits = model(nothing)
    metrics = train(model, settings, mix=mix)
    assert places == [1, 2, 3, 4]
    expected = sum(-head.log_softmax(1).mean().item() for head in logits) / 2
    assert metrics.loss == pytest.approx(expected, abs=1e-4), "the mixed clips and their targets"
    guess = sum(head.softmax(1) for head in logits).argmax().item()
    assert metrics.top1 == pytest.approx(100 * (Clips(24).labels == guess).float().mean().item())


@pytest.mark.parametrize("bad", [1, 4, 5, 6])
def test_a_loss_that_is_not_finite_stops_the_run_and_tells_where(bad: int) -> None:
    saved: list[int] = []

    def mix(clip: Tensor, label: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
        return clip * (float("nan") if iteration == bad else 1.0), label

    settings = flat({"batch_size": 4})
    with pytest.raises(Diverged, match=rf"not finite in iteration {bad} .*base_learning_rate") as caught:
        train(Heads(), settings, mix=mix, save=lambda: saved.append(1), config={"save_iter_freq": 1, "print_freq": 3})
    assert (caught.value.iteration, caught.value.here) == (bad, True)
    assert len(saved) == bad - 1, "nothing is saved from there on"


def test_a_gradient_that_is_not_finite_is_found_before_its_weights_are_saved() -> None:
    model, saved = Heads(), []
    model.one.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(Diverged, match="not finite in iteration 1 "):
        train(model, flat({"batch_size": 4}), save=lambda: saved.append(1), config={"save_iter_freq": 1})
    assert not saved


def test_it_saves_after_steps_and_stops_when_asked() -> None:
    model, config = Heads(), config_of(flat({"batch_size": 2, "iter_size": 2}), save_iter_freq=3)
    training, saved = new_training(model, config, 12), []
    loader = DataLoader(Clips(24), batch_size=2)
    with pytest.raises(Interrupted):
        train_one_epoch(
            training,
            loader,
            config,
            save=lambda: saved.append(training.iteration),
            asked_to_stop=lambda: training.iteration == 10,
        )
    assert saved == [4, 6, 10], "the steps after iterations 3, 6 and 9, and before the stop"


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_autocast_trains_almost_like_float32(amp: Any) -> None:
    torch.manual_seed(0)
    plain, half = Heads(), Heads()
    half.load_state_dict(plain.state_dict())
    before = plain.one.weight.clone()
    expected, metrics = (
        train_one_epoch(new_training(model, config, 6), DataLoader(Clips(24), batch_size=4), config)
        for model, config in ((plain, config_of(flat({}))), (half, config_of(flat({}), amp)))
    )
    assert metrics.loss == pytest.approx(expected.loss, rel=2e-2)
    moved = (plain.one.weight - before).norm()
    assert 0 < (half.one.weight - plain.one.weight).norm() < 0.1 * moved


def test_a_compiled_network_trains_alike() -> None:
    plain, compiled = Heads(), Heads()
    compiled.load_state_dict(plain.state_dict())
    compiled.compile(backend="aot_eager")  # the whole way but for the compiler
    one, other = train(plain, flat({"batch_size": 4})), train(compiled, flat({"batch_size": 4}))
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, compiled.state_dict()[name], atol=1e-6), name


def test_the_scaler_skips_a_step_that_overflows() -> None:
    model = Heads()
    config = config_of(flat({"batch_size": 24}), "fp16")
    training = new_training(model, config, 1)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = model.one.weight.clone()
    train_one_epoch(training, DataLoader(Clips(24), batch_size=24), config)
    assert torch.equal(model.one.weight, before)
    assert training.scaler.get_scale() == 2.0**126
    # Momentum begins with the first step that is taken.
    training.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    train_one_epoch(training, DataLoader(Clips(24), batch_size=24), config)
    assert 0 < (model.one.weight - before).norm() < 1


def test_gradients_that_no_scale_makes_finite_stop_the_run() -> None:
    model, saved = Heads(), []
    model.one.weight.register_hook(lambda gradient: gradient * float("inf"))
    config = config_of(flat({"batch_size": 4}), "fp16", print_freq=2)
    training = new_training(model, config, 6)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    with pytest.raises(Diverged, match="not finite at too many steps up to iteration 4"):
        train_one_epoch(training, DataLoader(Clips(24), batch_size=4), config, save=lambda: saved.append(1))
    assert training.scaler.get_scale() == 0.25


@pytest.mark.usefixtures("_process_group")
def test_gradients_are_exchanged_once_a_step() -> None:
    model = DistributedDataParallel(Heads())
    exchanged = 0

    def count(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        nonlocal exchanged
        exchanged += 1
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    model.register_comm_hook(None, count)
    train(model, flat({"batch_size": 2, "iter_size": 4}))
    assert exchanged == 3  # 24 clips in 12 iterations, 3 steps
