"""One epoch of training. What is measured, saved and printed meanwhile is in meters.py and with the caller."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from engine.batch_norm import hold_frozen_statistics
from engine.meters import EpochMeters, Progress
from engine.metrics import Metrics, loss_over_heads
from engine.precision import AMP_DTYPES, autocast
from engine.prefetch import DevicePrefetcher
from engine.schema import Config, Optimization
from engine.signals import Interrupted
from engine.state import TrainState

Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def train_epoch(
    state: TrainState,
    network: nn.Module,
    batches: DevicePrefetcher,
    config: Config,
    *,
    mix: Mix | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    advance: Callable[[], None] = lambda: None,
    save: Callable[[], None] = lambda: None,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Metrics:
    """Trains to the end of the present epoch.

    The gradient of a step is that of the mean loss over iter_size iterations times loss_weight; its norm is at most
    clip_gradient. The scheduler moves at every iteration, whether the optimizer steps or not, as in the release.

    Args:
        state: continues at state.iteration.
        network: state.model as the processes train it together.
        batches: of (clip, label, index), those that are left of the epoch.
        config: its sections optimization, execution and logging.
        mix: from clips, labels and iteration to the clips to train on and their targets (N, classes), on the device.
            Accuracy is by the labels.
        report: called at each print_freq iterations but the last.
        advance: called after each iteration.
        save: called after a step of the optimizer when save_iter_freq iterations have passed, or before a stop.
        asked_to_stop: asked after each step of the optimizer, in all processes; True in all of them or in none.

    Returns:
        Mean loss and accuracy of the epoch's clips as the network saw them in training, over all processes.

    Raises:
        Diverged: the loss is not finite, or in float16 its gradient at any scale; the network is not worth saving.
        Interrupted: it was asked to stop, and has saved.
    """
    settings, amp = config.optimization, AMP_DTYPES[config.execution.amp]
    network.train()
    hold_frozen_statistics(state.model)
    meters, last = EpochMeters(state, batches), state.iterations_per_epoch
    for i, (clip, label, _) in enumerate(batches, start=state.iteration + 1):
        inputs, target = mix(clip, label, i) if mix else (clip, label)
        ends_step = i % settings.iter_size == 0
        loss, logits = forward_backward(state, network, inputs, target, settings, amp, exchange=ends_step)
        learning_rate = state.optimizer.param_groups[0]["lr"]
        norm = optimizer_step(state, settings.clip_gradient) if ends_step else None
        state.scheduler.step()
        state.iteration = i

        meters.iteration(loss, logits, label, learning_rate, norm)
        advance()
        is_reported = i % config.logging.print_freq == 0
        if is_reported or i == last:
            meters.check()
            meters.check_scale()
        if i == last:
            break
        if is_reported:
            report(meters.progress())
        if ends_step:
            stop = asked_to_stop()
            if stop or _passes(config.logging.save_iter_freq, i, settings.iter_size):
                meters.check()
                save()
            if stop:
                raise Interrupted
    return meters.metrics()


def forward_backward(
    state: TrainState,
    network: nn.Module,
    clip: Tensor,
    target: Tensor,
    settings: Optimization,
    amp: torch.dtype | None,
    *,
    exchange: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Adds the gradient of one iteration.

    Args:
        clip: (N, 3, T, H, W).
        target: labels (N,) or probabilities (N, classes).
        exchange: whether the processes exchange gradients now, once a step.

    Returns:
        The mean loss, a scalar, and the logits (N, classes) of each head.
    """
    with contextlib.nullcontext() if exchange else _without_exchange(network):
        with autocast(state.device, amp):
            logits = network(clip)
        loss = loss_over_heads(logits, target)
        state.scaler.scale(loss * (settings.loss_weight / settings.iter_size)).backward()
    return loss, logits


def optimizer_step(state: TrainState, clip_gradient: float) -> Tensor:
    """Moves the weights and their mean. Returns the norm of the gradient before clipping (0: no limit)."""
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), clip_gradient or float("inf"))
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update()
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _passes(frequency: int, iteration: int, iter_size: int) -> bool:
    """Whether the step that ends with this iteration reaches or passes a multiple of `frequency`; 0: never."""
    return bool(frequency) and iteration // frequency > (iteration - iter_size) // frequency


@contextlib.contextmanager
def _without_exchange(network: nn.Module) -> Iterator[None]:
    """The processes exchange gradients once a step, not at each of its iterations."""
    if isinstance(network, DistributedDataParallel):
        with network.no_sync():
            yield
    elif isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(False)
        yield
        network.set_requires_gradient_sync(True)
    else:
        yield
