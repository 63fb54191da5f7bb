"""What is done to a training batch as a whole: mixup, cutmix, label smoothing."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class MixupCutmix:
    """Mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019), one of both for a batch, and label smoothing.

    num_classes: of the labels.
    seed: of the run. What is drawn is a function of it and of `draw` alone.
    mixup_alpha, cutmix_alpha: the share of a clip that stays is drawn from Beta(alpha, alpha); 0: without. With both,
        each batch has one of them, with equal chances.
    label_smoothing: the share of every target that is spread evenly over all classes, in [0, 1).
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
    def does_something(self) -> bool:
        return max(self.mixup_alpha, self.cutmix_alpha, self.label_smoothing) > 0

    def __call__(self, clips: Tensor, labels: Tensor, draw: Iterable[int] = ()) -> tuple[Tensor, Tensor]:
        """Clips (N, C, T, H, W) and labels (N,) as mixed clips and targets (N, num_classes), whose rows add up to 1.

        draw: numbers that tell this batch from every other, such as epoch, process and iteration.
        """
        smooth = self.label_smoothing
        targets = F.one_hot(labels, self.num_classes).float() * (1 - smooth) + smooth / self.num_classes
        alphas = [(self.mixup_alpha, _mixup), (self.cutmix_alpha, _cutmix)]
        active = [(alpha, mix) for alpha, mix in alphas if alpha > 0]
        if active and len(clips) > 1:
            random = np.random.default_rng([self.seed, *draw])
            alpha, mix = active[random.integers(len(active))]
            # Each clip goes with its neighbour in a random order: never with itself.
            order = torch.from_numpy(random.permutation(len(clips)))
            partner = torch.empty_like(order)
            partner[order] = order.roll(1)
            partner = partner.to(clips.device, non_blocking=True)  # waits for nothing that the device still computes
            clips, share = mix(clips, clips[partner], random.beta(alpha, alpha), random)
            targets = share * targets + (1 - share) * targets[partner]
        return clips, targets


def _mixup(clips: Tensor, others: Tensor, share: float, random: np.random.Generator) -> tuple[Tensor, float]:
    return share * clips + (1 - share) * others, share


def _cutmix(clips: Tensor, others: Tensor, share: float, random: np.random.Generator) -> tuple[Tensor, float]:
    """The same box in all frames and all clips; what the frame's border cuts off does not count."""
    height, width = clips.shape[-2:]
    side = float(np.sqrt(1 - share))
    half_height, half_width = round(side * height) // 2, round(side * width) // 2
    y, x = random.integers(height), random.integers(width)
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    left, right = max(x - half_width, 0), min(x + half_width, width)
    mixed = clips.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return mixed, 1 - float((bottom - top) * (right - left)) / (height * width)
