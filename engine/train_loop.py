"""One epoch of training. What is measured, saved and printed meanwhile is in meters.py and with the caller."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from engine.batch_norm import average_buffers, hold_frozen_statistics, precise_batch_norm
from engine.eval_loop import validation_is_due
from engine.meters import EpochMeters, Progress
from engine.metrics import Metrics, loss_over_heads
from engine.precision import AMP_DTYPES, autocast
from engine.prefetch import DevicePrefetcher
from engine.schema import Config
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

    The scheduler moves at every iteration, whether the optimizer steps or not, as in the release.

    Args:
        state: continues at state.iteration.
        network: state.model as the processes train it together.
        batches: of (clip, label, index), those that are left of the epoch.
        config: its sections optimization, execution and logging.
        mix: from clips, labels and iteration to the clips to train on and their targets (N, classes), on the device.
        report: called at each print_freq iterations but the last.
        advance: called after each iteration.
        save: called after a step of the optimizer when save_iter_freq iterations have passed, or before a stop.
        asked_to_stop: asked after each step of the optimizer, in all processes; True in all of them or in none.

    Returns:
        Mean loss and accuracy (by the labels) of the epoch's clips as the network saw them, over all processes.

    Raises:
        Diverged: the loss is not finite, or in float16 its gradient at any scale; the network is not worth saving.
        Interrupted: it was asked to stop, and has saved.
    """
    settings = config.optimization
    network.train()
    hold_frozen_statistics(state.model)
    meters = EpochMeters(state, batches)
    for i, (clip, label, _) in enumerate(batches, start=state.iteration + 1):
        inputs, target = mix(clip, label, i) if mix else (clip, label)
        ends_step = i % settings.iter_size == 0
        loss, logits = forward_backward(state, network, inputs, target, config, exchange=ends_step)
        state.learning_rate = state.optimizer.param_groups[0]["lr"]
        norm = optimizer_step(state, settings.clip_gradient) if ends_step else None
        state.scheduler.step()
        state.iteration = i

        meters.update(loss, logits, label, norm)
        advance()
        meters.report_if_due(config.logging.print_freq, report)
        if ends_step and i < state.iterations_per_epoch:
            stop = asked_to_stop()
            if stop or _passes(config.logging.save_iter_freq, i, settings.iter_size):
                meters.check()
                save()
            if stop:
                raise Interrupted
        if i == state.iterations_per_epoch:
            break
    return meters.metrics()


def forward_backward(
    state: TrainState,
    network: nn.Module,
    clip: Tensor,
    target: Tensor,
    config: Config,
    *,
    exchange: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Adds the gradient of one iteration; that of a step is of the mean loss over iter_size of them, times loss_weight.

    Args:
        clip: (N, 3, T, H, W).
        target: labels (N,) or probabilities (N, classes).
        exchange: whether the processes exchange gradients now, once a step.

    Returns:
        The mean loss, a scalar, and the logits (N, classes) of each head.
    """
    settings = config.optimization
    with contextlib.nullcontext() if exchange else _without_exchange(network):
        with autocast(state.device, AMP_DTYPES[config.execution.amp]):
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


def finish_epoch(state: TrainState, config: Config, clips: Callable[[int], Iterable[Tensor]]) -> None:
    """Counts the epoch, and makes BatchNorm's statistics those to validate and save, equal on all processes.

    Args:
        state: at the end of an epoch.
        config: its sections optimization, evaluation and execution.
        clips: batches of clips as an epoch will draw them, for precise BatchNorm.
    """
    state.epoch += 1
    state.start_epoch()
    batches = config.optimization.precise_bn
    if batches and validation_is_due(config, state.epoch):
        with state.ema_applied(), autocast(state.device, AMP_DTYPES[config.execution.amp]):
            precise_batch_norm(state.model, clips(state.epoch), batches)
    average_buffers(state.model)
    if state.ema:
        with state.ema_applied():
            average_buffers(state.model)


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
