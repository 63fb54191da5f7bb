"""Scores of videos: each video counts once, whatever the number of processes and the batch size."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.errors import UserError
from engine.distributed import Process, all_gather
from engine.logger import RunLogger
from engine.metrics import Metrics, label_rank, loss_over_heads, mean_softmax
from engine.parallel import is_sharded
from engine.precision import AMP_DTYPES, autocast
from engine.prefetch import Batch, DevicePrefetcher, HostCopies, padded_to_longest_rank
from engine.samplers import DistributedVideoSampler
from engine.schema import Config
from engine.signals import Interrupted, StopSignals

log = logging.getLogger("sifa")

SECONDS_BETWEEN_LINES = 30


class VideoViews(Protocol):
    """A validation set: view `index` = video * views + clip * num_crops + crop, with views = num_clips * num_crops."""

    videos: Sequence[Any]  # of Video
    num_clips: int
    num_crops: int

    @property
    def views(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]: ...

    def relabel(self, labels: Sequence[int]) -> None: ...


@torch.no_grad()  # not inference_mode: parameters that a sharded network gathers in it could not be trained
def score_videos(
    model: nn.Module,
    batches: DevicePrefetcher,
    sampler: DistributedVideoSampler,
    data: VideoViews,
    *,
    amp: torch.dtype | None = None,
    keep: Callable[[int, Tensor, Tensor], None],
    report: Callable[[int, int], None] = lambda done, of: None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Runs the views of this process through the network, without waiting for any other process.

    A sharded network is the exception: the processes must run it equally often, and those with fewer batches run clips
    again.

    Args:
        model: the bare network.
        batches: of the views, in the order of the sampler.
        sampler: all views of a video in a row.
        data: the validation set.
        amp: dtype of autocast, or None.
        keep: called with the number of each video, its scores (views, classes), which are means of the heads'
            softmaxes, and its losses (views,), means over the heads, on the CPU in float32 and float64.
        report: called with (views done, views in all) of this process after each batch.
        check: called after each batch; may raise to end it.
    """
    model.eval()
    pending: list[tuple[Tensor, Tensor]] = []  # views of a video whose other views are in the next batch
    done = 0
    padded = padded_to_longest_rank(batches, data) if is_sharded(model) else batches  # type: ignore[arg-type]
    for index, results in _scored_batches(model, padded, batches.device, amp):
        scores, losses = results.read()
        for view, score, view_loss in zip(index.tolist(), scores, losses, strict=True):
            pending.append((score, view_loss))
            if len(pending) == data.views:
                video_scores, video_losses = (torch.stack(values) for values in zip(*pending, strict=True))
                keep(view // data.views, video_scores, video_losses)
                pending.clear()
        done += len(index)
        report(done, len(sampler))
        check()


def _scored_batches(
    model: nn.Module, batches: Iterable[Batch], device: torch.device, amp: torch.dtype | None
) -> Iterator[tuple[Tensor, HostCopies]]:
    """Of each batch with labels: index (N,), and copies of scores (N, classes) and losses (N,).

    A batch is handed on when the next one is launched, so that a GPU never waits for the host.
    """
    waiting: tuple[Tensor, HostCopies] | None = None
    for clip, label, index in batches:
        with autocast(device, amp):
            logits = model(clip)
        if not len(index):
            continue
        losses = loss_over_heads(logits, label, reduction="none").double() / len(logits)
        launched = index, HostCopies(mean_softmax(logits), losses)
        if waiting is not None:
            yield waiting
        waiting = launched
    if waiting is not None:
        yield waiting


def evaluate(
    model: nn.Module,
    batches: DevicePrefetcher,
    sampler: DistributedVideoSampler,
    data: VideoViews,
    *,
    strict: bool = False,
    **options: Any,
) -> Metrics:
    """Scores all videos over all processes; the score of a video is the mean over its views.

    Args:
        model, batches, sampler, data, options: see `score_videos`.
        strict: whether scores that are not finite are an error, or only a warning.

    Returns:
        The same metrics on every process.

    Raises:
        UserError: in all processes, if strict.
    """
    # The results of a video have a place of their own, so that the order of arrival does not show in the sums.
    ranks = torch.zeros(len(data.videos), dtype=torch.int64)
    losses = torch.zeros(len(data.videos), dtype=torch.float64)
    scored: list[int] = []
    not_finite: list[int] = []

    def keep(video: int, scores: Tensor, view_losses: Tensor) -> None:
        ranks[video] = label_rank(scores.mean(0)[None], torch.tensor([data.videos[video].label]))[0]
        losses[video] = view_losses.mean()
        scored.append(video)
        if not scores.isfinite().all():
            not_finite.append(video)

    score_videos(model, batches, sampler, data, keep=keep, **options)
    for videos, their_ranks, their_losses, bad in all_gather((scored, ranks[scored], losses[scored], not_finite)):
        ranks[videos], losses[videos] = their_ranks, their_losses
        not_finite = sorted({*not_finite, *bad})
    if not_finite:
        report_not_finite([data.videos[video].path for video in not_finite], len(data.videos), strict=strict)
    return Metrics.of(losses, ranks)


def report_not_finite(videos: Sequence[str], of: int, *, strict: bool) -> None:
    """Says that a network gave no usable scores for some videos; they count as wrong.

    Args:
        videos: their paths.
        of: videos in all.
        strict: raise UserError instead of a warning.
    """
    message = (
        f"the scores of {len(videos)} of {of} videos are not finite ({videos[0]} is the first): the weights are not "
        "usable, or execution.amp is too narrow for them"
    )
    if strict:
        raise UserError(message)
    log.warning(message)


def validation_is_due(config: Config, epoch: int) -> bool:
    """Whether a validation follows this epoch (counted from 1)."""
    return epoch % config.evaluation.eva_inter_freq == 0 or epoch == config.optimization.epochs


class Validator:
    """The validation videos of a run, shared between its processes.

    Args:
        data: the validation set.
        sampler: the share of this process.
        batches: of the sampler's views.
        config: of the run.
        process: this process.
        signals: end a validation early.
    """

    def __init__(
        self,
        data: VideoViews,
        sampler: DistributedVideoSampler,
        batches: DevicePrefetcher,
        config: Config,
        process: Process,
        signals: StopSignals,
    ) -> None:
        self.data, self.sampler, self.batches = data, sampler, batches
        self.config, self.process, self.signals = config, process, signals

    @property
    def views(self) -> str:
        """For the log: how many videos, and of how many views each."""
        return f"({len(self.data.videos)} videos, {self.data.num_clips} clips x {self.data.num_crops} crops)"

    def validate(self, model: nn.Module, logger: RunLogger, epoch: int, split: str) -> Metrics:
        """Scores each video once, and records the figures.

        Args:
            model: the bare network.
            logger: of the run.
            epoch: that the network was trained for.
            split: "val" during a training, "eval" for --eval, where scores that are not finite are an error.

        Returns:
            The same metrics on every process.
        """
        with logger.bar("validation", len(self.sampler)):
            options = self.scoring_options("validation", logger)
            metrics = evaluate(model, self.batches, self.sampler, self.data, strict=split == "eval", **options)
        logger.metrics(epoch, split, metrics)
        log.info(f"{metrics.line()}  loss {metrics.loss:.4f}  {self.views}")
        if split == "val" and (curve := logger.validation_curve()):
            log.info(curve)
        return metrics

    def scoring_options(self, title: str, logger: RunLogger) -> dict[str, Any]:
        """Of `score_videos`: precision, lines of the log, and the check for a stop."""
        amp = AMP_DTYPES[self.config.execution.amp]
        return {"amp": amp, "report": _ProgressLines(title, logger), "check": self.check_stop}

    def check_stop(self) -> None:
        # The other processes were asked as well, or will miss this one at the end; there is nothing to save.
        if self.signals.received is not None:
            raise Interrupted


class _ProgressLines:
    """Moves the bar; where there is none, a line of the log now and then with the time left."""

    def __init__(self, title: str, logger: RunLogger) -> None:
        self.title, self.logger = title, logger
        self.began = self.shown = time.monotonic()
        self.done = 0

    def __call__(self, done: int, of: int) -> None:
        self.logger.advance(done - self.done)
        self.done = done
        now = time.monotonic()
        if now - self.shown > SECONDS_BETWEEN_LINES:
            self.shown = now
            left = timedelta(seconds=round((now - self.began) / done * (of - done)))
            log.info(f"{self.title}  {done}/{of} views of this process  left {left}")
