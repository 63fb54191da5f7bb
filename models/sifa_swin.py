"""SIFA-Transformer (paper, section 3.4): a Swin whose frames meet in the stem, in SIFA and in a convolution.

Blocks pass clips on as (N, T, H, W, C), Swin's own order with frames before it; torchvision's window attention sees
the frames as a batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.swin_transformer import PatchMerging, SwinTransformerBlock

from models.folding import merge_time, split_time, stack_frames
from models.sifa import OffsetInit, OffsetSource
from models.temporal import STAGES, Stage, Temporal, TemporalConv, TemporalModelling

PATCH = 4  # a tubelet is 4 frames of 4 x 4 pixels
WINDOW = 7
DEPTHS = (2, 2, 18, 2)


class TubeletEmbedding(nn.Module):
    """Tubelets of 4 x 4 x 4 pixels become tokens: the release's strided 3D convolution as a 2D one on stacked frames.

    Args:
        channels: of a token.
        norm: a LayerNorm on the tokens, as Swin has and the release has not.

    Shape:
        (N, 3, T, H, W) to (N, T/4, ceil(H/4), ceil(W/4), channels), zeros at the lower and right edge.
    """

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3 * PATCH, channels, kernel_size=PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        height, width = clip.shape[3:]
        clip = nn.functional.pad(clip, (0, -width % PATCH, 0, -height % PATCH))
        stacked = stack_frames(clip, PATCH)  # (N, T/4, 12, H, W)
        tokens = self.proj(merge_time(stacked)).permute(0, 2, 3, 1)
        return self.norm(split_time(tokens, stacked.shape[1]))


class ClipSwinBlock(SwinTransformerBlock):
    """torchvision's Swin block on clips, with a place for SIFA or a temporal convolution after the window attention.

    Stochastic depth takes a branch from a whole clip, so that SIFA compares frames that went the same way.

    Args:
        channels: C.
        heads: of the window attention.
        shift: of the windows, in tokens.
        stochastic_depth: probability that a clip skips a branch in training.
        temporal: maps (N, T, C, H, W) to what is added to it; None: nothing is.
        scaled: the temporal branch ends in a LayerNorm that starts at zero. SIFA is cubic in its input and needs it.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        shift: int,
        stochastic_depth: float,
        temporal: nn.Module | None,
        scaled: bool,
    ) -> None:
        super().__init__(channels, heads, [WINDOW] * 2, [shift] * 2, stochastic_depth_prob=stochastic_depth)
        self.temporal = temporal
        self.norm_temporal = nn.LayerNorm(channels) if scaled else nn.Identity()

    def forward(self, clip: Tensor) -> Tensor:
        windows = self.attn(merge_time(self.norm1(clip)))
        clip = clip + self.stochastic_depth(split_time(windows, clip.shape[1]))
        if self.temporal is not None:
            branch = self.temporal(clip.movedim(-1, 2)).movedim(2, -1)  # views: channels stay innermost
            clip = clip + self.norm_temporal(branch)
        return clip + self.stochastic_depth(self.mlp(self.norm2(clip)))


class SwinStage(nn.Module):
    """Blocks, then (but for the last stage) patches merged two by two into twice the channels."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, clip: Tensor, *, recompute: bool) -> Tensor:
        for block in self.blocks:
            clip = checkpoint(block, clip, use_reentrant=False) if recompute else block(clip)
        return clip if self.downsample is None else self.downsample(clip)


class SIFASwin(nn.Module):
    """SIFA-Transformer. Blocks without window shift end their attention with SIFA, blocks with it with a convolution.

    In the last stage, whose map at 224 x 224 is one window, every block has SIFA.

    Args:
        num_classes: classes of the head.
        clip_length: frames of a clip in training; others work as well, see Shape.
        sifa_kernel, stages, temporal, offset, offset_init: see `TemporalModelling`; res2..res5 are the four stages.
            `temporal` concerns SIFA's places, not the convolution of blocks with window shift.
        dropout_ratio: before the classifier.
        width: channels of res2, a multiple of `heads`.
        heads: of res2's window attention, doubled from stage to stage.
        stochastic_depth: probability of the last block to be skipped; it grows linearly from 0 at the first.
        patch_norm: a norm after the embedding. ImageNet's Swin has it, the release has not.
        activation_checkpointing: keep only the input of each block and compute it again in the backward pass.

    Shape:
        (N, 3, T, H, W) to a tuple of one, logits (N, num_classes). T divisible by 4, any H and W.

    Raises:
        ValueError: clip_length, or the frames of an input, do not divide so.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        clip_length: int,
        width: int,
        heads: int,
        sifa_kernel: Sequence[int] = (3, 3, 3, 3),
        stages: Sequence[Stage] = STAGES,
        temporal: Temporal = "sifa",
        offset: OffsetSource = "motion_saliency",
        offset_init: OffsetInit = "zero",
        dropout_ratio: float = 0.5,
        stochastic_depth: float = 0.3,
        patch_norm: bool = False,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if width % heads != 0:
            raise ValueError(f"width must be a multiple of the {heads} heads of res2, got {width}")
        modelling = TemporalModelling(stages, sifa_kernel, temporal, offset, offset_init)
        self.frame_multiple = PATCH
        self.check_frames(clip_length)
        self.clip_length = clip_length
        self.activation_checkpointing = activation_checkpointing

        def block(index: int, i: int) -> ClipSwinBlock:
            """Block i of res2 (index 0) .. res5 (index 3)."""
            channels = width * 2**index
            shifted, attends = i % 2 == 1, i % 2 == 0 or index == 3
            over_time: nn.Module | None = None
            if modelling.covers(index):
                over_time = modelling.module(index, channels) if attends else TemporalConv(channels)
            return ClipSwinBlock(
                channels,
                heads * 2**index,
                shift=WINDOW // 2 if shifted else 0,  # torchvision shifts nothing where one window is all
                stochastic_depth=stochastic_depth * (sum(DEPTHS[:index]) + i) / (sum(DEPTHS) - 1),
                temporal=over_time,
                scaled=modelling.covers(index) and attends and modelling.attends,
            )

        self.patch_embed = TubeletEmbedding(width, norm=patch_norm)
        self.layers = nn.ModuleList(
            SwinStage(
                [block(index, i) for i in range(depth)],
                PatchMerging(width * 2**index) if index < 3 else None,
            )
            for index, depth in enumerate(DEPTHS)
        )
        self.norm = nn.LayerNorm(width * 8)
        self.dropout = nn.Dropout(dropout_ratio)
        self.fc = nn.Linear(width * 8, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Swin's initialisation; branches over time start at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ClipSwinBlock) and isinstance(module.norm_temporal, nn.LayerNorm):
                nn.init.zeros_(module.norm_temporal.weight)

    def blocks(self) -> list[nn.Module]:
        """The residual blocks, from the first to the last."""
        return [module for module in self.modules() if isinstance(module, ClipSwinBlock)]

    def check_frames(self, frames: int) -> None:
        """Raises ValueError unless clips of so many frames fit the embedding."""
        if frames < 1 or frames % self.frame_multiple != 0:
            raise ValueError(
                f"the frames of a clip must be a positive multiple of {self.frame_multiple} "
                f"(the stem merges 4 frames into one), got {frames}"
            )

    def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
        if clip.dim() != 5 or clip.shape[1] != 3:
            raise ValueError(f"a batch of clips must be (N, 3, T, H, W), got {tuple(clip.shape)}")
        self.check_frames(clip.shape[2])
        x = self.patch_embed(clip)  # (N, T/4, H/4, W/4, width)
        recompute = self.activation_checkpointing and torch.is_grad_enabled()
        for stage in self.layers:
            x = stage(x, recompute=recompute)  # H/8, H/16, H/32
        frames = self.norm(x).mean(dim=(2, 3))  # (N, T/4, 8*width)
        return (self.fc(self.dropout(frames)).mean(dim=1),)
