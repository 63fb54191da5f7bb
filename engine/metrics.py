"""Loss and accuracy, from the logits of the heads to the line of the log."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOP = (1, 3, 5)
LOSS_DIGITS = 4  # after the point, of a validation


def loss_over_heads(logits: Sequence[Tensor], labels: Tensor, reduction: str = "mean") -> Tensor:
    """The training loss: the sum of the cross-entropies of all heads. What is recorded is its mean over the heads.

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


def label_rank(scores: Tensor, labels: Tensor) -> Tensor:
    """The rank of the right class, (N,): how many classes have a higher score. 0 is a top-1 hit.

    Of two equal scores the lower class counts first. Scores that are not finite give the last rank, never a hit.

    Args:
        scores: (N, classes).
        labels: (N,).
    """
    right = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    rank = ((scores > right) | ((scores == right) & earlier)).sum(1)
    return torch.where(scores.isfinite().all(1), rank, scores.shape[1])


def interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share hits / trials, in percent: the uncertainty of an accuracy on few videos."""
    z = 1.96
    centre, spread = hits + z * z / 2, z * math.sqrt(hits * (trials - hits) / max(trials, 1) + z * z / 4)
    low, high = (100 * (centre + sign * spread) / (trials + z * z) for sign in (-1, 1))
    return max(0.0, low), min(100.0, high)


def chance(classes: int) -> str:
    """For the log: loss and accuracy of a network that gives every class the same probability."""
    return f"chance: loss {math.log(classes):.2f}, accuracy {100 / classes:.3g} %"


@dataclass(frozen=True)
class Metrics:
    """Over `videos` videos (in training: clips): mean loss of a head, and top-1, top-3, top-5 in percent."""

    videos: int
    loss: float
    top1: float
    top3: float
    top5: float

    @classmethod
    def of(cls, losses: Tensor, ranks: Tensor) -> "Metrics":
        """From the loss (V,) and the rank of the label (V,) of each video, in the order of the list."""
        hits = [100.0 * (ranks < k).double().mean().item() for k in TOP]
        # Inside the network the order of sums depends on the size of the batch: further digits would not depend on the
        # videos alone.
        return cls(len(ranks), round(losses.double().mean().item(), LOSS_DIGITS), *hits)

    def line(self) -> str:
        """The accuracies with their 95 % intervals."""
        parts = []
        for k, value in zip(TOP, (self.top1, self.top3, self.top5), strict=True):
            low, high = interval(round(value * self.videos / 100), self.videos)
            parts.append(f"top-{k} {value:.2f} ({low:.1f} to {high:.1f})")
        return "  ".join(parts)
