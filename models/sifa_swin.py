"""SIFA-Transformer (paper, section 3.4): a Swin whose frames meet in the stem, in SIFA and in a convolution.

Blocks pass clips on as (N, T, H, W, C), the axes of torchvision's Swin with the frames inserted; its window attention
sees the frames as a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.swin_transformer import PatchMerging, SwinTransformerBlock

from models.folding import merge_time, split_time, stack_frames
from models.network import STEM_FRAMES, Grid, Network
from models.temporal import STAGES, TemporalConv, TemporalModelling

PATCH = 4  # height and width in pixels of a tubelet, which is STEM_FRAMES frames long
WINDOW = 7  # tokens along a side of an attention window
DEPTHS = (2, 2, 18, 2)  # blocks of res2..res5


class TubeletEmbedding(nn.Module):
    """Tubelets of 4 x 4 x 4 pixels become tokens: the release's strided 3D convolution as a 2D one on stacked frames.

    Args:
        channels: of a token.
        norm: whether a LayerNorm follows, as in Swin; the release has none.

    Shape:
        (N, 3, T, H, W) to (N, T/4, ceil(H/4), ceil(W/4), channels), with zeros at the lower and right edge.
    """

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3 * STEM_FRAMES, channels, kernel_size=PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        height, width = clip.shape[3:]
        clip = nn.functional.pad(clip, (0, -width % PATCH, 0, -height % PATCH))
        stacked = stack_frames(clip, STEM_FRAMES)  # (N, T/4, 12, H, W)
        tokens = self.proj(merge_time(stacked)).permute(0, 2, 3, 1)  # (N*T/4, H/4, W/4, channels)
        return self.norm(split_time(tokens, stacked.shape[1])).to(tokens.dtype)  # under autocast, as its input


class ClipSwinBlock(SwinTransformerBlock):
    """torchvision's Swin block on clips, with an optional temporal module after the window attention.

    Stochastic depth skips a branch for a whole clip, so that SIFA compares frames that went through the same layers.

    Args:
        channels: C.
        heads: of the window attention.
        shift: of the windows, in tokens.
        stochastic_depth: probability that a clip skips a branch in training.
        temporal: maps (N, T, C, H, W) to what is added to it: SIFA or another module of models/temporal.py.
        temporal_norm: whether the temporal branch ends in a LayerNorm that starts at zero. Attention needs it, as its
            output is cubic in its input.

    Shape:
        (N, T, H, W, C) to (N, T, H, W, C).
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        shift: int,
        stochastic_depth: float,
        temporal: nn.Module | None,
        temporal_norm: bool,
    ) -> None:
        super().__init__(channels, heads, [WINDOW] * 2, [shift] * 2, stochastic_depth_prob=stochastic_depth)
        self.temporal = temporal
        self.norm_temporal = nn.LayerNorm(channels) if temporal_norm else nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        windows = self.attn(merge_time(self.norm1(clip)))
        clip = clip + self.stochastic_depth(split_time(windows, clip.shape[1]))
        if self.temporal is not None:
            branch = self.temporal(clip.movedim(-1, 2)).movedim(2, -1)  # views: channels stay innermost
            # A norm under CUDA's autocast returns float32, and one sum with it would leave the clip, and with it the op
            # of all later blocks, in float32.
            clip = clip + self.norm_temporal(branch).to(clip.dtype)
        return clip + self.stochastic_depth(self.mlp(self.norm2(clip)))


class SwinStage(nn.Module):
    """The blocks of a stage, then the merging of 2 x 2 patches into twice the channels, except after the last stage.

    Args:
        blocks: map (N, T, H, W, C) to the same shape.
        downsample: maps it to (N, T, H/2, W/2, 2*C).
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, clip: Tensor, *, recompute: bool) -> Tensor:
        for block in self.blocks:
            clip = checkpoint(block, clip, use_reentrant=False) if recompute else block(clip)
        return clip if self.downsample is None else self.downsample(clip)


@dataclass(frozen=True, kw_only=True)
class SIFASwinOptions:
    """The options of SIFA-Transformer.

    Args:
        width: channels of res2, a multiple of `heads`.
        heads: of res2's window attention; each further stage has twice as many.
        temporal_modelling: where and how the network models time. `temporal` is the module in SIFA's positions, the
            blocks with shifted windows have their convolution in any case.
        dropout_ratio: dropout before the classifier.
        stochastic_depth: probability that the last block is skipped; it grows linearly from 0 at the first.
        patch_norm: a norm after the embedding. ImageNet's Swin has it, the release has not.
        activation_checkpointing: keep only the input of each block and compute the rest again in the backward pass.

    Raises:
        ValueError: width is not a multiple of heads, or SIFA has a scale of its own.
    """

    width: int
    heads: int
    temporal_modelling: TemporalModelling = field(default=TemporalModelling())
    dropout_ratio: float = 0.5
    stochastic_depth: float
    patch_norm: bool = False
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads != 0:
            raise ValueError(f"width must be a multiple of the {self.heads} heads of res2, got {self.width}")
        if changes := self.temporal_modelling.changes_to_attention:
            raise ValueError(f"{' and '.join(changes)} is for SIFA-Net: SIFA-Transformer has a norm after SIFA instead")


class SIFASwin(Network):
    """SIFA-Transformer. SIFA follows the attention of blocks without window shift, a convolution that of the others.

    In the last stage, whose map at 224 x 224 is one window, SIFA follows in every block.

    Args:
        options: see `SIFASwinOptions`.
        num_classes: classes of the head.
        clip_length: frames of a clip in training; others work as well, see Shape.

    Shape:
        (N, 3, T, H, W) to a tuple of one, logits (N, num_classes). T is a multiple of 4; H and W are arbitrary.

    Raises:
        ValueError: clip_length, or T of an input, is not a positive multiple of 4.
    """

    stage_paths = ("layers.0.blocks", "layers.1.blocks", "layers.2.blocks", "layers.3.blocks")
    channel_axis = 4

    def __init__(self, options: SIFASwinOptions, *, num_classes: int, clip_length: int) -> None:
        super().__init__(clip_length, activation_checkpointing=options.activation_checkpointing)
        width = options.width
        self.patch_embed = TubeletEmbedding(width, norm=options.patch_norm)
        self.layers = nn.ModuleList(
            SwinStage(
                [_make_block(options, index, i) for i in range(depth)],
                PatchMerging(width * 2**index) if index < 3 else None,
            )
            for index, depth in enumerate(DEPTHS)
        )
        self.norm = nn.LayerNorm(width * 8)
        self.dropout = nn.Dropout(options.dropout_ratio)
        self.fc = nn.Linear(width * 8, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Swin's initialisation; temporal branches start at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ClipSwinBlock) and isinstance(module.norm_temporal, nn.LayerNorm):
                nn.init.zeros_(module.norm_temporal.weight)

    def grid(self, stage: str) -> Grid:
        """A token is a patch of the image: its centre is half a patch from the patch's first pixel."""
        stride = PATCH * 2 ** STAGES.index(stage)
        return Grid(stride, (stride - 1) / 2)

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        self.check_batch(clip)
        x = self.patch_embed(clip)  # (N, T/4, H/4, W/4, width)
        recompute = self.activation_checkpointing and torch.is_grad_enabled()
        for stage in self.layers:
            x = stage(x, recompute=recompute)  # H/8, H/16, H/32
        frames = self.norm(x).mean(dim=(2, 3))  # (N, T/4, 8*width)
        return (self.fc(self.dropout(frames)).mean(dim=1),)


def _make_block(options: SIFASwinOptions, index: int, i: int) -> ClipSwinBlock:
    """Block i of res2 (index 0) .. res5 (index 3)."""
    stage, modelling = STAGES[index], options.temporal_modelling
    channels = options.width * 2**index
    shifted = i % 2 == 1
    is_sifa_position = not shifted or stage == "res5"
    temporal: nn.Module | None = None
    if modelling.covers(stage):
        temporal = modelling.module(stage, channels) if is_sifa_position else TemporalConv(channels)
    return ClipSwinBlock(
        channels,
        options.heads * 2**index,
        shift=WINDOW // 2 if shifted else 0,  # torchvision does not shift where one window covers the map
        stochastic_depth=options.stochastic_depth * (sum(DEPTHS[:index]) + i) / (sum(DEPTHS) - 1),
        temporal=temporal,
        temporal_norm=modelling.covers(stage) and is_sifa_position and modelling.is_attention,
    )
