"""One epoch of training, and an exact validation."""

import contextlib
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from datasets.batches import normalise
from engine.distributed import Process, gather, total
from engine.errors import UserError
from engine.metrics import TOP, Metrics, mean_softmax, place_of_label, sum_of_losses
from engine.schema import Optimization


def train_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    settings: Optimization,
    process: Process,
    *,
    print_freq: int,
    report: Callable[[str], None],
    mix: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None,
) -> Metrics:
    """Trains for one epoch.

    Args:
        model: on the process's device, wrapped in DistributedDataParallel where there are several processes.
        loader: of (clip, label, index) batches, clips uint8 (N, T, H, W, 3); its length is a multiple of iter_size.
        scheduler: stepped after every iteration, whether the optimiser steps or not, as in the release.
        settings: iter_size iterations make a step. The gradient is that of the mean loss over them times loss_weight,
            its norm at most clip_gradient.
        report: called each print_freq iterations with what a line of the log tells about them.
        mix: from clips, labels and iteration to the clips to train on and their targets (N, classes), on the device.
            Accuracy is by the labels.

    Returns:
        Mean loss and accuracy of the clips as the network saw them in training, over all processes.

    Raises:
        UserError: the loss is not finite.
    """
    model.train()
    # [clips, loss, hits for each k], on the device: reading a number waits for the GPU, which happens once a report.
    sums = torch.zeros(2 + len(TOP), dtype=torch.float64, device=process.device)
    reported, since = sums.clone(), time.perf_counter()
    for i, (clip, label, _) in enumerate(loader, start=1):
        clip, label = _to_device(clip, label, process.device)
        clip, target = mix(clip, label, i) if mix else (clip, label)
        steps_now = i % settings.iter_size == 0
        # Gradients are exchanged between processes once a step, not at each of its iterations.
        with contextlib.nullcontext() if steps_now or not _is_distributed(model) else model.no_sync():  # type: ignore[operator]
            logits = model(clip)
            loss = sum_of_losses(logits, target)
            (loss * (settings.loss_weight / settings.iter_size)).backward()
        if steps_now:
            if settings.clip_gradient > 0:
                nn.utils.clip_grad_norm_(model.parameters(), settings.clip_gradient)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        learning_rate = optimizer.param_groups[0]["lr"]
        scheduler.step()

        place = place_of_label(mean_softmax([head.detach() for head in logits]), label)
        hits = torch.stack([(place < k).sum() for k in TOP])
        sums += torch.cat([sums.new_tensor([len(label)]), loss.detach().double()[None] * len(label), hits])
        if i % print_freq == 0 or i == len(loader):
            clips, loss_sum, *_ = (sums - reported).tolist()
            if not math.isfinite(loss_sum):
                raise UserError(
                    f"the loss is {loss_sum / clips} within the last {print_freq} iterations (learning rate "
                    f"{learning_rate:.2e}): lower optimization.base_learning_rate or warm up for longer"
                )
        if i % print_freq == 0 and i < len(loader):  # the epoch's own line tells about its end
            now = time.perf_counter()
            speed = clips * process.world / (now - since)
            report(f"{i}/{len(loader)}  loss {loss_sum / clips:.4f}  lr {learning_rate:.2e}  {speed:.1f} clips/s")
            reported, since = sums.clone(), now
    clips, loss_sum, *hits_sum = total(sums).tolist()
    return Metrics(int(clips), loss_sum / clips, *(100 * h / clips for h in hits_sum))


def _is_distributed(model: nn.Module) -> bool:
    return isinstance(model, DistributedDataParallel)


def _to_device(clip: Tensor, label: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Clips as bytes travel four times as fast; the device normalises them."""
    return normalise(clip.to(device, non_blocking=True)), label.to(device, non_blocking=True)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: DataLoader,
    process: Process,
    *,
    videos: int,
    views: int,
    report: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Validates over all processes. Each video counts once, whatever the number of processes and the batch size.

    Args:
        model: the bare network, not wrapped: no process waits for another inside.
        loader: this process's views, all of a video's in a row (see `VideoShare`); index = video * views + view.
        videos: of the whole list.
        views: of each video. Its score is the mean over them of the mean of the heads' softmaxes.
        report: called with (views done, views in all) of this process after each batch.

    Returns:
        The same metrics on every process.
    """
    model.eval()
    # Each video's results go to its own place, so that no order of arrival shows in the sums.
    places = torch.zeros(videos, dtype=torch.int64)
    losses = torch.zeros(videos, dtype=torch.float64)
    mine: list[int] = []
    rest: list[tuple[Tensor, Tensor]] = []  # views of a video that the batch cut in two
    done = 0
    for clip, label, index in loader:
        clip, label = _to_device(clip, label, process.device)
        logits = model(clip)
        scores, loss = mean_softmax(logits).cpu(), sum_of_losses(logits, label, reduction="none").double().cpu()
        for view, one_label, score, view_loss in zip(index.tolist(), label.cpu(), scores, loss, strict=True):
            rest.append((score, view_loss))
            if len(rest) == views:
                video = view // views
                mean_score = torch.stack([s for s, _ in rest]).mean(0)
                places[video] = place_of_label(mean_score[None], one_label[None])[0]
                losses[video] = torch.stack([one for _, one in rest]).mean()
                mine.append(video)
                rest.clear()
        done += len(label)
        if report is not None:
            report(done, len(loader.sampler))  # type: ignore[arg-type]
    for other, other_places, other_losses in gather((mine, places[mine], losses[mine])):
        places[other], losses[other] = other_places, other_losses
    return Metrics.of(losses, places)
