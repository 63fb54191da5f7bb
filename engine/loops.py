"""One epoch of training, the scores of a list of videos, and an exact validation."""

import contextlib
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from engine.distributed import Process, gather, is_sharded, total
from engine.errors import UserError
from engine.feed import Feed, in_step
from engine.metrics import TOP, Metrics, mean_softmax, place_of_label, sum_of_losses
from engine.optim import rest_frozen_norms
from engine.schema import Config
from engine.stopping import Stopped
from engine.training import Training

SMALLEST_SCALE = 1.0  # of the loss in float16; below it the scale no longer helps
AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: torch.dtype | None) -> torch.autocast:
    """PyTorch's autocast, which does nothing for None."""
    return torch.autocast(device.type, amp, enabled=amp is not None)


@dataclass(frozen=True)
class Progress:
    """What a line of the log tells about the iterations since the line before, of all processes.

    Attributes:
        iteration, of: of the epoch.
        gradient_norm: of the last step, before it was clipped.
        data_wait: share of the time that was spent waiting for the loader, in this process.
        memory: GiB, the most so far: of this process, on the GPU what PyTorch holds there.
    """

    iteration: int
    of: int
    loss: float
    top1: float
    top5: float
    learning_rate: float
    gradient_norm: float
    clips_per_second: float
    data_wait: float
    memory: float

    def __str__(self) -> str:
        return (
            f"{self.iteration}/{self.of}  loss {self.loss:.4f}  lr {self.learning_rate:.2e}  "
            f"{self.clips_per_second:.1f} clips/s  waited {100 * self.data_wait:.0f} %  {self.memory:.1f} GiB"
        )


class Diverged(UserError):
    """The loss, or its gradient, is not finite any more.

    Attributes:
        iteration: of the epoch, the first where it was so.
        here: whether it was so in this process.
    """

    def __init__(self, message: str, iteration: int, here: bool) -> None:
        super().__init__(message)
        self.iteration, self.here = iteration, here


class LossWatch:
    """Finds the first iteration whose loss or gradient is not finite, without waiting for the device at each."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), -1, device=device)

    def see(self, iteration: int, value: Tensor) -> None:
        self._first = torch.where((self._first < 0) & ~value.isfinite(), iteration, self._first)

    def check(self, learning_rate: float) -> None:
        """Raises Diverged, in all processes alike; all of them must call it."""
        mine = int(self._first)
        found = [first for first in gather(mine) if first >= 0]
        if found:
            raise Diverged(
                f"the loss or its gradient is not finite in iteration {min(found)} (learning rate "
                f"{learning_rate:.2e}): lower optimization.base_learning_rate or warm up for longer",
                min(found),
                mine == min(found),
            )


def refuse_lost_scale(scaler: torch.amp.GradScaler, iteration: int) -> None:
    """Raises Diverged, in all processes alike, where float16 gradients are not finite at any scale."""
    # It begins at 65536 and is halved at each step that is not taken, for that reason alone.
    if scaler.is_enabled() and scaler.get_scale() < SMALLEST_SCALE:
        raise Diverged(
            f"the gradient was not finite at too many steps up to iteration {iteration}, and none was taken: lower "
            "optimization.base_learning_rate or warm up for longer, or use execution.amp bf16 or none",
            iteration,
            False,
        )


def train_epoch(
    training: Training,
    network: nn.Module,
    loader: Iterable,
    config: Config,
    process: Process,
    *,
    mix: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    advance: Callable[[], None] = lambda: None,
    save: Callable[[], None] = lambda: None,
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Metrics:
    """Trains to the end of the epoch under way. The gradient of a step is that of the mean loss over iter_size
    iterations times loss_weight, its norm at most clip_gradient.

    Args:
        training: goes on from training.iteration; the scheduler moves every iteration, whether the optimiser steps or
            not, as in the release.
        network: training.model as the processes train it together.
        loader: of the (clip, label, index) batches that are left of the epoch.
        config: its sections optimization, execution and logging.
        mix: from clips, labels and iteration to the clips to train on and their targets (N, classes), on the device.
            Accuracy is by the labels.
        report: called each print_freq iterations but the last.
        advance: called after each iteration.
        save: called after a step of the optimiser when save_iter_freq iterations have gone by, or before a stop.
        asked_to_stop: asked after each step of the optimiser, in all processes; True in all of them or in none.

    Returns:
        Mean loss and accuracy of the epoch's clips as the network saw them in training, over all processes.

    Raises:
        Diverged: the loss is not finite, or in float16 its gradient at any scale; the network is not worth saving.
        Stopped: it was asked to, and has saved.
    """
    settings, print_freq, save_freq = config.optimization, config.logging.print_freq, config.logging.save_iter_freq
    amp = AMP[config.execution.amp]
    network.train()
    rest_frozen_norms(training.model)
    optimizer, scaler, sums, last = training.optimizer, training.scaler, training.sums, training.iterations_per_epoch
    watch, feed = LossWatch(process.device), Feed(loader, process.device)
    norm = torch.zeros(())
    reported, since, waited = sums.clone(), time.perf_counter(), 0.0
    for i, (clip, label, _) in enumerate(feed, start=training.iteration + 1):
        clip, target = mix(clip, label, i) if mix else (clip, label)
        steps_now = i % settings.iter_size == 0
        with _without_exchange(network) if not steps_now else contextlib.nullcontext():
            with autocast(process.device, amp):
                logits = network(clip)
            loss = sum_of_losses(logits, target)
            scaler.scale(loss * (settings.loss_weight / settings.iter_size)).backward()
        learning_rate = optimizer.param_groups[0]["lr"]
        if steps_now:
            norm = _step(training, settings.clip_gradient)
            if not scaler.is_enabled():  # which takes no step where the gradient is not finite
                watch.see(i, norm)
        training.scheduler.step()
        training.iteration = i

        loss = loss.detach()
        watch.see(i, loss)
        place = place_of_label(mean_softmax([head.detach() for head in logits]), label)
        hits = torch.stack([(place < k).sum() for k in TOP])
        sums += torch.cat([sums.new_full((1,), len(label)), loss.double()[None] * len(label), hits])
        advance()
        if i % print_freq == 0 or i == last:
            watch.check(learning_rate)
            refuse_lost_scale(scaler, i)
        if i == last:
            break
        if i % print_freq == 0:
            clips, loss_sum, hits1, _, hits5 = total(sums - reported).tolist()
            now = time.perf_counter()
            seconds = now - since
            report(
                Progress(
                    iteration=i,
                    of=last,
                    loss=loss_sum / clips,
                    top1=100 * hits1 / clips,
                    top5=100 * hits5 / clips,
                    learning_rate=learning_rate,
                    gradient_norm=float(norm),
                    clips_per_second=clips / seconds,
                    data_wait=(feed.waited - waited) / seconds,
                    memory=peak_memory(process.device),
                )
            )
            reported, since, waited = sums.clone(), now, feed.waited
        if steps_now:
            stop = asked_to_stop()
            if stop or (save_freq and i // save_freq > (i - settings.iter_size) // save_freq):
                watch.check(learning_rate)
                save()
            if stop:
                raise Stopped
    clips, loss_sum, *hits_sum = total(sums.clone()).tolist()
    return Metrics(int(clips), loss_sum / clips, *(100 * h / clips for h in hits_sum))


def _step(training: Training, clip_gradient: float) -> Tensor:
    """Moves the weights. Returns the norm of the gradient, as it was before it was clipped."""
    training.scaler.unscale_(training.optimizer)
    norm = nn.utils.clip_grad_norm_(training.model.parameters(), clip_gradient or float("inf"))
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.optimizer.zero_grad(set_to_none=True)
    if training.average is not None:
        training.average.update()
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@contextlib.contextmanager
def _without_exchange(network: nn.Module) -> Iterator[None]:
    """Gradients are exchanged between processes once a step, not at each of its iterations."""
    if isinstance(network, DistributedDataParallel):
        with network.no_sync():
            yield
    elif isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(False)
        yield
        network.set_requires_gradient_sync(True)
    else:
        yield


def peak_memory(device: torch.device) -> float:
    """GiB that this process has held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


@torch.no_grad()  # not inference_mode: what a sharded network puts together in it could not be trained on
def score_videos(
    model: nn.Module,
    loader: DataLoader,
    process: Process,
    *,
    views: int,
    amp: torch.dtype | None = None,
    keep: Callable[[int, Tensor, Tensor], None],
    report: Callable[[int, int], None] = lambda done, of: None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Runs this process's share of a list through the network, without waiting for any other process.

    Unless the network is sharded: then the processes run it equally often, those with fewer clips on clips again that
    they have had.

    Args:
        model: the bare network.
        loader: its sampler a `VideoShare`, all views of a video in a row; index = video * views + view.
        views: of each video.
        amp: autocast's type, or None.
        keep: called with each video's number, scores (views, classes), the means of the heads' softmaxes, and losses
            (views,), on the CPU in float32 and float64.
        report: called with (views done, views in all) of this process after each batch.
        check: called after each batch; may raise to end it.
    """
    model.eval()
    rest: list[tuple[Tensor, Tensor]] = []  # views of a video that the batch cut in two
    done = 0
    batches = Feed(loader, process.device)
    for clip, label, index in in_step(batches, loader.dataset) if is_sharded(model) else batches:
        with autocast(process.device, amp):
            logits = model(clip)
        if not len(index):
            continue
        scores, loss = mean_softmax(logits).cpu(), sum_of_losses(logits, label, reduction="none").double().cpu()
        for view, score, view_loss in zip(index.tolist(), scores, loss, strict=True):
            rest.append((score, view_loss))
            if len(rest) == views:
                keep(view // views, torch.stack([s for s, _ in rest]), torch.stack([one for _, one in rest]))
                rest.clear()
        done += len(label)
        report(done, len(loader.sampler))  # type: ignore[arg-type]
        check()


def evaluate(
    model: nn.Module, loader: DataLoader, process: Process, *, labels: list[int], views: int, **options: Any
) -> Metrics:
    """Validates over all processes. Each video counts once, whatever the number of processes and the batch size.

    Args:
        labels: of all videos of the list. A video's score is the mean over its views.
        model, loader, views, options: see `score_videos`.

    Returns:
        The same metrics on every process.
    """
    # Each video's results go to its own place, so that no order of arrival shows in the sums.
    places = torch.zeros(len(labels), dtype=torch.int64)
    losses = torch.zeros(len(labels), dtype=torch.float64)
    mine: list[int] = []

    def keep(video: int, scores: Tensor, view_losses: Tensor) -> None:
        places[video] = place_of_label(scores.mean(0)[None], torch.tensor([labels[video]]))[0]
        losses[video] = view_losses.mean()
        mine.append(video)

    score_videos(model, loader, process, views=views, keep=keep, **options)
    for other, other_places, other_losses in gather((mine, places[mine], losses[mine])):
        places[other], losses[other] = other_places, other_losses
    return Metrics.of(losses, places)
