"""Loss and accuracy, from the heads' logits to the line that is printed."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOP = (1, 3, 5)
LOSS_DIGITS = 4  # after the point, of a validation


def sum_of_losses(logits: Sequence[Tensor], labels: Tensor, reduction: str = "mean") -> Tensor:
    """The training loss: the sum of the heads' cross-entropies.

    Args:
        logits: (N, classes) for each head.
        labels: (N,), or for mixed and smoothed targets the probabilities (N, classes).
        reduction: "mean" over the batch, or "none" for (N,).
    """
    losses = [F.cross_entropy(head.float(), labels, reduction=reduction) for head in logits]
    return torch.stack(losses).sum(0)


def mean_softmax(logits: Sequence[Tensor]) -> Tensor:
    """The prediction of a network: the mean of the heads' softmaxes, (N, classes)."""
    return torch.stack([head.float().softmax(1) for head in logits]).mean(0)


def place_of_label(scores: Tensor, labels: Tensor) -> Tensor:
    """How many classes are preferred to the right one, (N,): 0 is a top-1 hit.

    Of two equal scores the lower class counts first. Scores that are not finite make the last place, never a hit.
    """
    right = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    place = ((scores > right) | ((scores == right) & earlier)).sum(1)
    return torch.where(scores.isfinite().all(1), place, scores.shape[1])


@dataclass(frozen=True)
class Metrics:
    """Over `videos` videos (of a training epoch: clips): mean loss, and top-1, top-3, top-5 in percent."""

    videos: int
    loss: float
    top1: float
    top3: float
    top5: float

    @classmethod
    def of(cls, losses: Tensor, places: Tensor) -> "Metrics":
        """From the loss (V,) and the place of the label (V,) of each video, in the order of the list."""
        hits = [100.0 * (places < k).double().mean().item() for k in TOP]
        # Batches of another size are summed in another order inside the network: digits beyond these are not the
        # videos' but the batches'.
        return cls(len(places), round(losses.double().mean().item(), LOSS_DIGITS), *hits)

    def line(self) -> str:
        return f"top-1 {self.top1:.2f}  top-3 {self.top3:.2f}  top-5 {self.top5:.2f}"
