"""Augmentation of a whole training batch: mixup, cutmix, label smoothing."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class MixupCutmix:
    """Mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019) of each batch, and label smoothing.

    Args:
        num_classes: of the labels.
        seed: of the run. The random numbers are a function of this seed and of `batch_key` alone.
        mixup_alpha: the share that a clip keeps of itself is drawn from Beta(alpha, alpha); 0: no mixup.
        cutmix_alpha: the same for cutmix; 0: no cutmix. If both are above 0, each batch gets one of the two, with equal
            probability.
        label_smoothing: the share of each target that is spread evenly over all classes, in [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        seed: int = 0,
        *,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        label_smoothing: float = 0.0,
    ) -> None:
        self.num_classes = num_classes
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.label_smoothing = label_smoothing
        self.seed = seed

    @property
    def enabled(self) -> bool:
        """Whether anything is changed at all."""
        return max(self.mixup_alpha, self.cutmix_alpha, self.label_smoothing) > 0

    def __call__(self, clips: Tensor, labels: Tensor, batch_key: Iterable[int] = ()) -> tuple[Tensor, Tensor]:
        """Mixes the clips of a batch.

        Args:
            clips: (N, C, T, H, W).
            labels: (N,).
            batch_key: numbers that identify the batch within the run, such as epoch, rank and iteration.

        Returns:
            The mixed clips, and their targets (N, num_classes), whose rows add up to 1.
        """
        smoothing = self.label_smoothing
        targets = F.one_hot(labels, self.num_classes).float() * (1 - smoothing) + smoothing / self.num_classes
        methods = [(self.mixup_alpha, _mixup), (self.cutmix_alpha, _cutmix)]
        active = [(alpha, mix) for alpha, mix in methods if alpha > 0]
        if active and len(clips) > 1:
            random = np.random.default_rng([self.seed, *batch_key])
            alpha, mix = active[random.integers(len(active))]
            # Each clip is mixed with its neighbour in a random order, so never with itself.
            order = torch.from_numpy(random.permutation(len(clips)))
            partner = torch.empty_like(order)
            partner[order] = order.roll(1)
            partner = partner.to(clips.device, non_blocking=True)  # does not wait for the device's computations
            clips, share = mix(clips, clips[partner], random.beta(alpha, alpha), random)
            targets = share * targets + (1 - share) * targets[partner]
        return clips, targets


def _mixup(clips: Tensor, others: Tensor, share: float, random: np.random.Generator) -> tuple[Tensor, float]:
    return share * clips + (1 - share) * others, share


def _cutmix(clips: Tensor, others: Tensor, share: float, random: np.random.Generator) -> tuple[Tensor, float]:
    """The same box in all frames and clips. The share is corrected for what lies outside of the frame."""
    height, width = clips.shape[-2:]
    side = float(np.sqrt(1 - share))
    half_height, half_width = round(side * height) // 2, round(side * width) // 2
    y, x = random.integers(height), random.integers(width)
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    left, right = max(x - half_width, 0), min(x + half_width, width)
    mixed = clips.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return mixed, 1 - float((bottom - top) * (right - left)) / (height * width)
