"""Entry points of torch.hub: `torch.hub.load(FOLDER, "sifa_net", source="local")`."""

from torch import nn

from models import InterFrameAttention, Network, build_model

dependencies = ["torch", "torchvision", "safetensors"]  # torch.hub asks for this name


def sifa_net(depth: int = 50, *, num_classes: int = 400, clip_length: int = 16, **options: object) -> Network:
    """SIFA-Net, untrained.

    Args:
        depth: 50 or 101.
        num_classes: classes of each head.
        clip_length: frames of a clip, a multiple of 8.
        **options: see `models.build_model`.
    """
    return build_model(f"c2d_sifa_resnet{depth}", num_classes=num_classes, clip_length=clip_length, **options)


def sifa_transformer(size: str = "s", *, num_classes: int = 400, clip_length: int = 16, **options: object) -> Network:
    """SIFA-Transformer, untrained.

    Args:
        size: s, b or l.
        num_classes: classes of the head.
        clip_length: frames of a clip, a multiple of 4.
        **options: see `models.build_model`.
    """
    return build_model(f"c2d_sifa_swin_vit_{size}_p4_w7", num_classes=num_classes, clip_length=clip_length, **options)


def inter_frame_attention(channels: int, kernel_size: int = 3, **options: object) -> nn.Module:
    """The module around the op: `clip + attention(clip)` for clips (N, T, C, H, W).

    Args:
        channels: C.
        kernel_size: k, odd: the neighbourhood has k*k taps.
        **options: see `models.InterFrameAttention`.
    """
    return InterFrameAttention(channels, kernel_size, **options)  # type: ignore[arg-type]
