"""SIFA-Net (paper, section 3.3): a 2D ResNet whose frames meet in the stem, in SIFA and in a global context.

Blocks pass clips on as (N, T, C, H, W); torchvision's 2D layers see the frames as a batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck, conv1x1

from models.folding import merge_time, pool_time, split_time, stack_frames
from models.sifa import OffsetInit, OffsetSource
from models.temporal import Stage, Temporal, TemporalModelling, reset_temporal_modules

STEM_FRAMES = 4  # frames that the stem merges into one


class GlobalContext(nn.Module):
    """What the whole clip shows, added at every position: fc2(relu(fc1(mean over T, H, W))).

    Shape:
        (N, T, C, H, W) to (N, 1, C, 1, 1).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, max(1, channels // reduction))
        self.fc2 = nn.Linear(self.fc1.out_features, channels)

    def forward(self, clip: Tensor) -> Tensor:
        context = self.fc2(torch.relu(self.fc1(clip.mean(dim=(1, 3, 4)))))
        return context[:, None, :, None, None]


class ClipBottleneck(Bottleneck):
    """torchvision's bottleneck on clips, with a place for SIFA after the 3x3 convolution and one for global context.

    Args:
        in_channels: channels of the input.
        planes: channels inside; the output has four times as many.
        stride: of the 3x3 convolution and the shortcut.
        temporal: SIFA over (N, T, planes, H, W), or what stands in its place, added to its input.
        context: context of (N, T, 4*planes, H, W), added beside the shortcut.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        temporal: nn.Module | None = None,
        context: nn.Module | None = None,
    ) -> None:
        out_channels = planes * self.expansion
        shortcut = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
        super().__init__(in_channels, planes, stride, downsample=shortcut)
        self.temporal = temporal
        self.context = context

    def forward(self, clip: Tensor) -> Tensor:
        frames = clip.shape[1]
        x = merge_time(clip)
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        if self.temporal is not None:
            inner = split_time(out, frames)
            out = merge_time(inner + self.temporal(inner))
        out = self.bn3(self.conv3(out))
        total = split_time(out + shortcut, frames)
        if self.context is not None:
            total = total + self.context(split_time(out, frames))
        return self.relu(total)


class SIFANet(nn.Module):
    """SIFA-Net. Stages that model time alternate global-context and SIFA bottlenecks; the others are plain.

    Args:
        depths: bottlenecks of res2..res5.
        num_classes: classes of each head.
        clip_length: frames of a clip in training; others work as well, see Shape.
        sifa_kernel, stages, temporal, offset, offset_init: see `TemporalModelling`.
        dropout_ratio: before the classifiers.
        width: channels of res2; 64 is the ResNet of the paper, less makes small networks.
        dual_head: a second res5 at the resolution of res4 and half the frames, with a classifier of its own.
        activation_checkpointing: keep only the input of each bottleneck and compute it again in the backward pass.

    Shape:
        (N, 3, T, H, W) to a tuple of logits (N, num_classes), one for each head. T divisible by 4, by 8 with the dual
        head. Any H and W.

    Raises:
        ValueError: clip_length, or the frames of an input, do not divide so.
    """

    def __init__(
        self,
        depths: Sequence[int],
        *,
        num_classes: int,
        clip_length: int,
        sifa_kernel: Sequence[int] = (1, 3, 3, 3),
        stages: Sequence[Stage] = ("res3", "res4", "res5"),
        temporal: Temporal = "sifa",
        offset: OffsetSource = "motion_saliency",
        offset_init: OffsetInit = "zero",
        dropout_ratio: float = 0.5,
        width: int = 64,
        dual_head: bool = True,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        modelling = TemporalModelling(stages, sifa_kernel, temporal, offset, offset_init)
        self.dual_head = dual_head
        self.activation_checkpointing = activation_checkpointing
        self.frame_multiple = STEM_FRAMES * (2 if dual_head else 1)
        self.check_frames(clip_length)
        self.clip_length = clip_length

        def stage(index: int, stride: int) -> nn.Sequential:
            """The blocks of res2 (index 0) .. res5 (index 3)."""
            planes = width * 2**index
            channels = width if index == 0 else planes * 2
            blocks = []
            for i in range(depths[index]):
                over_time: dict[str, nn.Module | None] = {}
                if modelling.covers(index) and i % 2 == 1:
                    over_time["temporal"] = modelling.module(index, planes)
                elif modelling.covers(index):
                    over_time["context"] = GlobalContext(planes * ClipBottleneck.expansion)
                blocks.append(ClipBottleneck(channels, planes, stride if i == 0 else 1, **over_time))
                channels = planes * ClipBottleneck.expansion
            return nn.Sequential(*blocks)

        # The release's 4x7x7 convolution with stride 4 over time is a 2D one over 3 channels of 4 stacked frames.
        self.conv1 = nn.Conv2d(3 * STEM_FRAMES, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = stage(0, stride=1)
        self.layer2 = stage(1, stride=2)
        self.layer3 = stage(2, stride=2)
        self.layer4 = stage(3, stride=2)
        features = width * 8 * ClipBottleneck.expansion
        self.dropout = nn.Dropout(dropout_ratio)
        self.fc = nn.Linear(features, num_classes)
        if dual_head:
            self.layer4_dual = stage(3, stride=1)
            self.fc_dual = nn.Linear(features, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The release's initialisation: Kaiming normal convolutions, and residual branches that start at zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, ClipBottleneck):
                nn.init.zeros_(module.bn3.weight)
        reset_temporal_modules(self)

    def blocks(self) -> list[nn.Module]:
        """The residual blocks, from the first to the last."""
        return [module for module in self.modules() if isinstance(module, ClipBottleneck)]

    def check_frames(self, frames: int) -> None:
        """Raises ValueError unless clips of so many frames fit the stem and the heads."""
        if frames < 1 or frames % self.frame_multiple != 0:
            why = "4 in the stem, 2 in the dual head" if self.dual_head else "the stem merges 4 frames into one"
            raise ValueError(
                f"the frames of a clip must be a positive multiple of {self.frame_multiple} ({why}), got {frames}"
            )

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        if clip.dim() != 5 or clip.shape[1] != 3:
            raise ValueError(f"a batch of clips must be (N, 3, T, H, W), got {tuple(clip.shape)}")
        self.check_frames(clip.shape[2])
        x = stack_frames(clip, STEM_FRAMES)  # (N, T/4, 12, H, W)
        frames = x.shape[1]
        x = split_time(
            self.maxpool(self.relu(self.bn1(self.conv1(merge_time(x))))), frames
        )  # (N, T/4, width, H/4, W/4)
        x = self._through(self.layer1, x)
        x = self._through(self.layer2, x)  # H/8
        x = self._through(self.layer3, x)  # H/16
        logits = self.fc(self.dropout(self._through(self.layer4, x).mean(dim=(1, 3, 4))))
        if not self.dual_head:
            return (logits,)
        dual = self._through(self.layer4_dual, pool_time(x))  # (N, T/8, 32*width, H/16, W/16)
        return logits, self.fc_dual(self.dropout(dual.mean(dim=(1, 3, 4))))

    def _through(self, stage: nn.Sequential, clip: Tensor) -> Tensor:
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            return stage(clip)
        for block in stage:
            if torch.compiler.is_compiling():
                # torch.compile takes no context of ours and needs none: it moves statistics once, at the graph's end.
                # Where a block breaks the graph, the loop is left uncompiled as a whole, and the other way is taken.
                clip = checkpoint(block, clip, use_reentrant=False)
            else:
                again = partial(_computed_again, block)
                clip = checkpoint(block, clip, use_reentrant=False, context_fn=again)
        return clip


def _computed_again(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """For `checkpoint`: around the first computation of a block, nothing; around the second, no statistics move."""
    return nullcontext(), _statistics_at_rest(block)


@contextmanager
def _statistics_at_rest(block: nn.Module) -> Iterator[None]:
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]  # SyncBatchNorm is one, too
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:  # the second computation is broken off by an exception as soon as nothing more is needed
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
