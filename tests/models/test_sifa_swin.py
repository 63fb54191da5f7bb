"""SIFA-Transformer: shapes, what it costs, and what remains of it without time."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from models import build_model, load_imagenet_state_dict
from models.sifa import InterFrameAttention
from models.sifa_swin import ClipSwinBlock, SIFASwin, SwinStage
from models.temporal import TemporalConv


def small(**options: Any) -> SIFASwin:
    model = build_model(
        "c2d_sifa_swin_vit_s_p4_w7", num_classes=5, clip_length=8, **{"width": 6, "offset_init": "kaiming", **options}
    )
    assert isinstance(model, SIFASwin)
    return model


def open_branches(model: nn.Module) -> nn.Module:
    """Branches over time start at zero, and a test of them would see nothing."""
    for module in model.modules():
        if isinstance(module, ClipSwinBlock):
            for parameter in module.norm_temporal.parameters():
                nn.init.normal_(parameter)
        elif isinstance(module, TemporalConv):
            nn.init.normal_(module.conv.weight, std=0.1)
    return model


@pytest.mark.parametrize("frames", [4, 8, 12])
@pytest.mark.parametrize("size", [(32, 32), (37, 61), (1, 3), (120, 20)], ids=str)
def test_any_clip_in_one_head_out(frames: int, size: tuple[int, int]) -> None:
    model = open_branches(small())
    with torch.no_grad():
        (logits,) = model(torch.randn(2, 3, frames, *size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patch_norm": True, "activation_checkpointing": True},
        *({"temporal": temporal} for temporal in ("centre", "conv", "shift", "none")),
        *({"offset": offset} for offset in ("difference", "next_frame", "conv3d", "regular")),
        {"stages": []},
        {"stages": ["res5"], "sifa_kernel": (1, 1, 1, 5)},
    ],
    ids=str,
)
@pytest.mark.parametrize("frames", [4, 8])
def test_every_parameter_has_a_gradient(options: dict[str, Any], frames: int) -> None:
    """So that distributed training needs no search for unused parameters, whichever branches are dropped."""
    model = small(**options)
    (logits,) = model(torch.randn(2, 3, frames, 32, 32))
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_no_gradient_is_zero_once_the_branches_are_open() -> None:
    model = open_branches(small(stochastic_depth=0.0)).double()
    (logits,) = model(torch.randn(2, 3, 12, 224, 224, dtype=torch.float64))
    logits.square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_blocks_by_position() -> None:
    """Blocks without window shift have SIFA, those with it a convolution; in the last stage all have SIFA."""
    sifa, conv, plain = InterFrameAttention, TemporalConv, type(None)

    def kinds(**options: Any) -> list[list[type]]:
        stages = [stage for stage in small(**options).layers if isinstance(stage, SwinStage)]
        return [[type(block.temporal) for block in stage.blocks] for stage in stages]

    assert kinds() == [[sifa, conv], [sifa, conv], [sifa, conv] * 9, [sifa, sifa]]
    assert kinds(stages=["res4"]) == [[plain] * 2, [plain] * 2, [sifa, conv] * 9, [plain] * 2]
    assert kinds(temporal="none") == [[plain, conv], [plain, conv], [plain, conv] * 9, [plain] * 2]


def test_stochastic_depth_grows_linearly() -> None:
    rates = [m.stochastic_depth.p for m in small(stochastic_depth=0.46).modules() if isinstance(m, ClipSwinBlock)]
    assert rates == pytest.approx([0.02 * i for i in range(24)])


def test_stochastic_depth_takes_whole_clips() -> None:
    block = ClipSwinBlock(6, 3, shift=0, stochastic_depth=0.5, temporal=None, temporal_norm=False)
    nn.init.zeros_(block.mlp[3].weight)
    nn.init.zeros_(block.mlp[3].bias)
    clip = torch.randn(40, 3, 7, 7, 6)
    same = (block(clip) == clip).flatten(2).all(2)  # (clips, frames)
    assert torch.equal(same.any(1), same.all(1))
    assert 5 < same.all(1).sum() < 35


def test_recomputed_activations_change_nothing() -> None:
    plain = open_branches(small(dropout_ratio=0.0)).double()
    frugal = small(dropout_ratio=0.0, activation_checkpointing=True).double()
    frugal.load_state_dict(plain.state_dict())
    clip = torch.randn(2, 3, 8, 32, 48, dtype=torch.float64)
    for model in (plain, frugal):
        torch.manual_seed(1)  # stochastic depth draws the same
        model(clip)[0].square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_frames_meet_only_over_time() -> None:
    """Without SIFA and convolution the frames of a clip are images of their own; with them they are not."""
    model = small().eval().double()
    clip = torch.randn(1, 3, 12, 40, 40, dtype=torch.float64)
    backwards = clip.unflatten(2, (3, 4)).flip(2).flatten(2, 3)
    with torch.no_grad():
        torch.testing.assert_close(model(clip), model(backwards))  # the branches start at zero
        open_branches(model)
        assert (model(clip)[0] - model(backwards)[0]).abs().max() > 1e-6


@pytest.mark.parametrize("size", [(224, 224), (72, 100)], ids=str)
def test_a_still_clip_without_time_is_an_image_in_torchvisions_swin(size: tuple[int, int]) -> None:
    """ImageNet weights are used as ImageNet meant them. As built, the branches over time are silent."""
    image_model = torchvision.models.swin_s().double().eval()
    for name, parameter in image_model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.uniform_(parameter, 0.5, 1.0)
    model = build_model("c2d_sifa_swin_vit_s_p4_w7", num_classes=1000, clip_length=8, patch_norm=True).double().eval()
    assert isinstance(model, SIFASwin)
    load_imagenet_state_dict(model, image_model.state_dict())
    model.fc.load_state_dict(image_model.head.state_dict())
    stages: list[Tensor] = []
    for stage in model.layers:
        stage.register_forward_hook(lambda module, inputs, output: stages.append(output))
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        (logits,) = model(image[:, :, None].expand(-1, -1, 8, -1, -1))
        expected = image
        for index, layer in enumerate(image_model.features):
            expected = layer(expected)
            if index in (2, 4, 6, 7):
                features = stages.pop(0)
                for frame in range(2):
                    torch.testing.assert_close(features[:, frame], expected)
        torch.testing.assert_close(logits, image_model(image))


def multiply_adds(offset: str) -> float:
    with torch.device("meta"):
        model = build_model("c2d_sifa_swin_vit_b_p4_w7", num_classes=400, clip_length=64, offset=offset)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, 64, 224, 224))
    return counter.get_total_flops() / 2e9


def test_multiply_adds() -> None:
    """SIFA.md, section 4, counted on the release, whose neighbourhood is regular; then the offset convolutions."""
    regular = multiply_adds("regular")
    assert regular == pytest.approx(274.94, rel=0.01)
    blocks = [(128, 56, 1), (256, 28, 1), (512, 14, 9), (1024, 7, 2)]  # channels, side, blocks with SIFA
    convolutions = sum(count * 15 * side**2 * 9 * channels * 18 for channels, side, count in blocks) / 1e9
    assert multiply_adds("motion_saliency") - regular == pytest.approx(convolutions)


@pytest.mark.parametrize(("size", "channels", "heads"), [("s", 96, 3), ("b", 128, 4), ("l", 192, 6)])
def test_sizes_by_name(size: str, channels: int, heads: int) -> None:
    with torch.device("meta"):
        model = build_model(f"c2d_sifa_swin_vit_{size}_p4_w7", num_classes=5, clip_length=8)
    assert isinstance(model, SIFASwin)
    blocks = [module for module in model.modules() if isinstance(module, ClipSwinBlock)]
    assert [(b.attn.num_heads, b.norm1.normalized_shape[0]) for b in (blocks[0], blocks[-1])] == [
        (heads, channels),
        (heads * 8, channels * 8),
    ]
    assert blocks[-1].stochastic_depth.p == {"s": 0.3, "b": 0.5, "l": 0.5}[size]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_length": 6}, r"positive multiple of 4 \(the stem .*\), got 6"),
        ({"width": 10}, "width must be a multiple of the 3 heads of res2, got 10"),
        ({"sifa_kernel": (3, 3)}, "sifa_kernel must have four sizes"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("c2d_sifa_swin_vit_s_p4_w7", num_classes=5, **{"clip_length": 8, **options})


@pytest.mark.parametrize("shape", [(2, 3, 8, 32), (2, 8, 3, 32, 32), (2, 3, 6, 32, 32)], ids=str)
def test_inputs_that_cannot_be(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(N, 3, T, H, W\), got|positive multiple of 4 .*, got 6"):
        small()(torch.zeros(shape))


def test_distributed_training_finds_every_parameter(tmp_path: Path) -> None:
    """Two steps without find_unused_parameters: the second would report a parameter that the first left out."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(small(stochastic_depth=0.9))
        for _ in range(2):
            (logits,) = model(torch.randn(2, 3, 8, 32, 32))
            logits.sum().backward()
    finally:
        torch.distributed.destroy_process_group()


def test_compiles_without_a_break() -> None:
    """Traced alone: compiled code is not this project's."""
    model = open_branches(small(width=3)).eval()
    clip = torch.randn(1, 3, 8, 40, 40)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip), model(clip))
