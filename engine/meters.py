"""What an epoch of training reports: sums over its clips, speed, memory, and a watch for divergence."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.distributed import all_reduce_sum
from engine.divergence import DivergenceWatch, check_loss_scale
from engine.metrics import TOP, Metrics, label_rank, mean_softmax
from engine.prefetch import DevicePrefetcher
from engine.state import TrainState


@dataclass(frozen=True)
class Progress:
    """What a line of the log tells about the iterations since the previous line, of all processes.

    Attributes:
        iteration, of: of the epoch.
        gradient_norm: of the last step, before clipping.
        data_wait: share of the time spent waiting for the loader, in this process.
        memory: peak so far in GiB: of this process; on a GPU, what PyTorch has allocated there.
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


class EpochMeters:
    """Follows the iterations of one epoch from outside: the training step does not know it.

    Args:
        state: whose sums of the epoch are updated.
        batches: the source of clips, for the time spent waiting.
    """

    def __init__(self, state: TrainState, batches: DevicePrefetcher) -> None:
        self.state, self.batches = state, batches
        self.watch = DivergenceWatch(state.device)
        self._norm = torch.zeros(())
        self._start_interval()

    def _start_interval(self) -> None:
        self._reported, self._since, self._waited = self.state.sums.clone(), time.perf_counter(), self.batches.waited

    def update(self, loss: Tensor, logits: tuple[Tensor, ...], label: Tensor, norm: Tensor | None) -> None:
        """Takes in what one iteration gave; nothing here waits for the device.

        Args:
            loss: its mean loss, a scalar, the sum over heads. The sums of the epoch are of its mean over heads.
            logits: (N, classes) for each head.
            label: (N,).
            norm: of the gradient, before clipping; None if the optimizer took no step.
        """
        if norm is not None:
            self._norm = norm
            if not self.state.scaler.is_enabled():  # the scaler takes no step where the gradient is not finite
                self.watch.see(self.state.iteration, norm)
        loss = loss.detach() / len(logits)
        self.watch.see(self.state.iteration, loss)
        rank = label_rank(mean_softmax([head.detach() for head in logits]), label)
        hits = torch.stack([(rank < k).sum() for k in TOP])
        count = self.state.sums.new_full((1,), len(label))
        self.state.sums += torch.cat([count, loss.double()[None] * len(label), hits])

    def check(self) -> None:
        """Raises Diverged if a loss or gradient so far was not finite. All processes must call it."""
        self.watch.check(self.state.learning_rate)

    def report_if_due(self, print_freq: int, report: Callable[[Progress], None]) -> None:
        """Checks for divergence, and reports, each print_freq iterations; at the end of the epoch it only checks.

        Raises:
            Diverged: in all processes.
        """
        is_last, is_due = (self.state.iteration % n == 0 for n in (self.state.iterations_per_epoch, print_freq))
        if is_last or is_due:
            self.check()
            check_loss_scale(self.state.scaler, self.state.iteration)
        if is_due and not is_last:
            report(self.progress())

    def progress(self) -> Progress:
        """The iterations since the last call, over all processes. All of them must call it."""
        state = self.state
        clips, loss_sum, hits1, _, hits5 = all_reduce_sum(state.sums - self._reported).tolist()
        seconds = time.perf_counter() - self._since
        progress = Progress(
            iteration=state.iteration,
            of=state.iterations_per_epoch,
            loss=loss_sum / clips,
            top1=100 * hits1 / clips,
            top5=100 * hits5 / clips,
            learning_rate=state.learning_rate,
            gradient_norm=float(self._norm),
            clips_per_second=clips / seconds,
            data_wait=(self.batches.waited - self._waited) / seconds,
            memory=peak_memory(state.device),
        )
        self._start_interval()
        return progress

    def metrics(self) -> Metrics:
        """Of the whole epoch, over all processes. All of them must call it."""
        clips, loss_sum, *hits = all_reduce_sum(self.state.sums.clone()).tolist()
        return Metrics(int(clips), loss_sum / clips, *(100 * h / clips for h in hits))


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has held, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
