"""SIFA-Net (paper, section 3.3): a 2D ResNet whose frames meet in the stem, in SIFA and in a global context.

Blocks pass clips on as (N, T, C, H, W); torchvision's 2D layers see the frames as a batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck, conv1x1

from models.folding import merge_time, pool_time, split_time, stack_frames
from models.network import STEM_FRAMES, STEM_REASON, Grid, Network
from models.temporal import STAGES, Stage, TemporalModelling, add_temporal, reset_temporal_modules


class GlobalContext(nn.Module):
    """Global context of a clip, to be added at every position: fc2(relu(fc1(mean over T, H, W))).

    Args:
        channels: C.
        reduction: the hidden layer has C / reduction channels.

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
    """torchvision's bottleneck on clips, with an optional temporal module after the 3x3 convolution and global context.

    Args:
        in_channels: channels of the input.
        planes: channels inside; the output has four times as many.
        stride: of the 3x3 convolution and the shortcut.
        stride_in_1x1: the stride is in the first 1x1 convolution instead, as in Caffe's ResNet of 2015.
        temporal: maps (N, T, planes, H, W) to what is added to it: SIFA or another module of models/temporal.py.
        context: maps (N, T, 4*planes, H, W), the residual branch, to what is added to the sum of branch and shortcut.

    Shape:
        (N, T, in_channels, H, W) to (N, T, 4*planes, H/stride, W/stride).
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        *,
        stride_in_1x1: bool = False,
        temporal: nn.Module | None = None,
        context: nn.Module | None = None,
    ) -> None:
        out_channels = planes * self.expansion
        shortcut = None
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
        super().__init__(in_channels, planes, stride, downsample=shortcut)
        if stride_in_1x1:
            self.conv1.stride, self.conv2.stride = self.conv2.stride, self.conv1.stride
        self.temporal = temporal
        self.context = context

    def forward(self, clip: Tensor) -> Tensor:
        frames = clip.shape[1]
        x = merge_time(clip)
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        if self.temporal is not None:
            out = merge_time(add_temporal(self.temporal, split_time(out, frames)))
        out = self.bn3(self.conv3(out))
        # In place where nothing needs the old values, and never on a view: autograd would copy the whole base then.
        if self.context is None:
            out += shortcut
        else:
            context = self.context(split_time(out, frames)).expand(-1, frames, -1, -1, -1)  # the same for all frames
            out += shortcut
            out += merge_time(context)
        return split_time(self.relu(out), frames)


@dataclass(frozen=True, kw_only=True)
class SIFANetOptions:
    """The options of SIFA-Net.

    Args:
        depths: bottlenecks of res2..res5.
        temporal_modelling: where and how the network models time.
        dropout_ratio: dropout before the classifiers.
        width: channels of res2, 2 at least; 64 is the ResNet of the paper, less makes small networks.
        stem_frames: frames that the stem merges into one feature frame. The paper's 4, or 1: then frames meet in the
            temporal modules alone (and in the maximum over pairs of frames of the dual head).
        caffe_style: bottlenecks have their stride in the first 1x1 convolution, as Caffe's ResNet of 2015, and image
            weights are expected to be of its kind: trained on BGR values in 0..255 without division by a deviation.
        dual_head: a second res5 at the resolution of res4 and half the frames, with a classifier of its own.
        activation_checkpointing: keep only the input of each bottleneck and compute the rest again in the backward
            pass.
    """

    depths: Sequence[int]
    temporal_modelling: TemporalModelling = field(
        default=TemporalModelling(sifa_kernel=(1, 3, 3, 3), stages=("res3", "res4", "res5"))
    )
    dropout_ratio: float = 0.5
    width: int = 64
    stem_frames: int = STEM_FRAMES
    caffe_style: bool = False
    dual_head: bool = True
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.stem_frames not in (1, STEM_FRAMES):
            raise ValueError(f"stem_frames must be 1 or {STEM_FRAMES}, got {self.stem_frames}")
        if self.width < 2:
            # PyTorch's convolutions of one channel in the channels-last layout write outside their memory (2.14, CPU).
            raise ValueError(f"width must be 2 or more, got {self.width}")


class SIFANet(Network):
    """SIFA-Net. Stages that model time alternate global-context and SIFA bottlenecks; the others are plain.

    Args:
        options: see `SIFANetOptions`.
        num_classes: classes of each head.
        clip_length: frames of a clip in training; others work as well, see Shape.

    Shape:
        (N, 3, T, H, W) to a tuple of logits (N, num_classes), one for each head. T is a multiple of stem_frames, with
        the dual head of twice as many; H and W are arbitrary.

    Raises:
        ValueError: clip_length, or T of an input, is not such a multiple.
    """

    stage_paths = ("layer1", "layer2", "layer3", "layer4")
    channel_axis = 2

    def __init__(self, options: SIFANetOptions, *, num_classes: int, clip_length: int) -> None:
        dual_head, stem_frames = options.dual_head, options.stem_frames
        super().__init__(
            clip_length,
            frame_multiple=2 * stem_frames if dual_head else stem_frames,
            frame_multiple_reason=f"{stem_frames} in the stem, 2 in the dual head" if dual_head else STEM_REASON,
            stem_frames=stem_frames,
            caffe_style=options.caffe_style,
            classifiers=("fc", "fc_dual") if dual_head else ("fc",),
            duplicated_stages={"layer4_dual": "layer4"} if dual_head else {},
            activation_checkpointing=options.activation_checkpointing,
        )
        self.dual_head = dual_head
        width = options.width
        # The release's 4x7x7 convolution with stride 4 over time is a 2D one over 3 channels of 4 stacked frames.
        self.conv1 = nn.Conv2d(3 * stem_frames, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _make_stage(options, "res2", stride=1)
        self.layer2 = _make_stage(options, "res3", stride=2)
        self.layer3 = _make_stage(options, "res4", stride=2)
        self.layer4 = _make_stage(options, "res5", stride=2)
        features = width * 8 * ClipBottleneck.expansion
        self.dropout = nn.Dropout(options.dropout_ratio)
        self.fc = nn.Linear(features, num_classes)
        if dual_head:
            self.layer4_dual = _make_stage(options, "res5", stride=1)
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

    def grid(self, stage: str) -> Grid:
        """The convolutions and the pooling are centred on the pixels 0, stride, 2 * stride, ..."""
        return Grid(4 * 2 ** STAGES.index(stage), 0.0)

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        self.check_batch(clip)
        x = stack_frames(clip, self.stem_frames)  # (N, T/4, 12, H, W); with a stem of one frame T in place of T/4
        frames = x.shape[1]
        x = split_time(
            self.maxpool(self.relu(self.bn1(self.conv1(merge_time(x))))), frames
        )  # (N, T/4, width, H/4, W/4)
        x = self._run_stage(self.layer1, x)  # (N, T/4, 4*width, H/4, W/4)
        x = self._run_stage(self.layer2, x)  # (N, T/4, 8*width, H/8, W/8)
        x = self._run_stage(self.layer3, x)  # (N, T/4, 16*width, H/16, W/16)
        features = self._run_stage(self.layer4, x)  # (N, T/4, 32*width, H/32, W/32)
        logits = self.fc(self.dropout(features.mean(dim=(1, 3, 4))))
        if not self.dual_head:
            return (logits,)
        dual = self._run_stage(self.layer4_dual, pool_time(x))  # (N, T/8, 32*width, H/16, W/16)
        return logits, self.fc_dual(self.dropout(dual.mean(dim=(1, 3, 4))))

    def _run_stage(self, stage: nn.Sequential, clip: Tensor) -> Tensor:
        if not (self.activation_checkpointing and torch.is_grad_enabled()):
            return stage(clip)
        for block in stage:
            if torch.compiler.is_compiling():
                # torch.compile accepts no context manager of our own here and needs none: it updates the statistics
                # once, at the end of the graph. Where a block breaks the graph, torch.compile skips the whole loop, and
                # the other branch runs.
                clip = checkpoint(block, clip, use_reentrant=False)
            else:
                contexts = partial(_checkpoint_contexts, block)
                clip = checkpoint(block, clip, use_reentrant=False, context_fn=contexts)
        return clip


def _make_stage(options: SIFANetOptions, stage: Stage, *, stride: int) -> nn.Sequential:
    """The bottlenecks of a stage; the first one has the stride."""
    index, modelling = STAGES.index(stage), options.temporal_modelling
    planes = options.width * 2**index
    channels = options.width if index == 0 else planes * 2
    blocks = []
    for i in range(options.depths[index]):
        temporal: nn.Module | None = None
        context: nn.Module | None = None
        if modelling.covers(stage) and i % 2 == 1:
            temporal = modelling.module(stage, planes)
        elif modelling.covers(stage):
            context = GlobalContext(planes * ClipBottleneck.expansion)
        blocks.append(
            ClipBottleneck(
                channels,
                planes,
                stride if i == 0 else 1,
                stride_in_1x1=options.caffe_style,
                temporal=temporal,
                context=context,
            )
        )
        channels = planes * ClipBottleneck.expansion
    return nn.Sequential(*blocks)


def _checkpoint_contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """For `checkpoint`: the contexts of the first computation of a block and of its recomputation."""
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Keeps the running statistics of BatchNorm as they are: the first computation has updated them already."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]  # SyncBatchNorm is one, too
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:  # an exception ends the recomputation as soon as it has produced what the backward pass needs
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
