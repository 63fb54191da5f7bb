"""SIFA-Net: shapes, sizes, what it costs, and what remains of it without time."""

from typing import Any

import pytest
import torch
import torch._dynamo
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import models
from models import Network, build_model, load_imagenet_state_dict
from models.sifa import InterFrameAttention
from models.sifa_resnet import ClipBottleneck, GlobalContext, SIFANet, SIFANetOptions


def small(clip_length: int = 8, **options: Any) -> Network:
    return build_model("c2d_sifa_resnet50", num_classes=5, clip_length=clip_length, **{"width": 4, **options})


@pytest.mark.parametrize("frames", [8, 16, 24])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 17), (1, 1)], ids=str)
def test_any_clip_in_two_heads_out(frames: int, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = small()(torch.randn(2, 3, frames, *size))
    assert [tuple(head.shape) for head in logits] == [(2, 5), (2, 5)]
    assert all(head.isfinite().all() for head in logits)


@pytest.mark.parametrize("frames", [4, 12])
def test_one_head_takes_any_multiple_of_four(frames: int) -> None:
    with torch.no_grad():
        logits = small(clip_length=4, dual_head=False)(torch.randn(2, 3, frames, 32, 40))
    assert [tuple(head.shape) for head in logits] == [(2, 5)]


def test_with_a_stem_of_one_frame_and_no_temporal_module_the_order_of_frames_is_not_seen() -> None:
    """The blind contestant of the study: any order gives the same logits. The paper's stem sees the order."""
    clip = torch.randn(2, 3, 8, 32, 32)
    order = torch.tensor([5, 2, 7, 0, 3, 6, 1, 4])
    for stem_frames, is_blind in ((1, True), (4, False)):
        model = open_branches(small(stem_frames=stem_frames, temporal="none", dual_head=False), 0.5).eval()
        with torch.no_grad():
            same = torch.allclose(model(clip)[0], model(clip[:, :, order])[0], rtol=1e-3, atol=1e-4)
        assert same == is_blind


def test_a_stem_of_one_frame_keeps_all_frames() -> None:
    model = small(clip_length=6, stem_frames=1)
    clips: list[torch.Size] = []
    model.get_submodule("layer1").register_forward_pre_hook(lambda module, inputs: clips.append(inputs[0].shape))
    with torch.no_grad():
        model(torch.randn(1, 3, 6, 32, 32))
    assert clips == [(1, 6, 4, 8, 8)]
    with pytest.raises(ValueError, match=r"positive multiple of 2 \(1 in the stem, 2 in the dual head\), got 3"):
        model(torch.randn(1, 3, 3, 32, 32))
    with pytest.raises(ValueError, match="stem_frames must be 1 or 4, got 2"):
        small(stem_frames=2)
    with pytest.raises(ValueError, match="width must be 2 or more, got 1"):
        small(width=1)


VARIANTS: list[dict[str, Any]] = [
    *({"temporal": temporal} for temporal in ("centre", "conv", "shift", "none")),
    *({"offset": offset} for offset in ("difference", "next_frame", "conv3d", "regular")),
    {"branch_scale": 0.1, "stem_frames": 1},
    {"cosine": True, "projection": True},
    {"stages": []},
    {"stages": ["res5"], "sifa_kernel": (1, 1, 1, 9)},
    {"stages": ["res2", "res3", "res4", "res5"], "sifa_kernel": (7, 3, 3, 3), "offset_init": "kaiming"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_parameter_of_every_variant_has_a_gradient(options: dict[str, Any]) -> None:
    model = open_branches(small(**options), 0.1)
    logits = model(torch.randn(2, 3, 16, 32, 32))
    torch.stack([head.square().sum() for head in logits]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_stages_are_where_time_is_modelled() -> None:
    def kinds(**options: Any) -> dict[str, list[str]]:
        """For each stage what its blocks do over time."""
        return {
            name: [type(block.temporal or block.context).__name__ for block in stage]
            for name, stage in small(**options).named_children()
            if isinstance(stage, nn.Sequential)
        }

    context, sifa, plain = "GlobalContext", "InterFrameAttention", "NoneType"
    alternating = [context, sifa, context, sifa, context, sifa]
    assert kinds() == {
        "layer1": [plain] * 3,
        "layer2": alternating[:4],
        "layer3": alternating[:6],
        "layer4": alternating[:3],
        "layer4_dual": alternating[:3],
    }
    only_res2 = kinds(stages=["res2"])
    assert only_res2.pop("layer1") == alternating[:3]
    assert {kind for stage in only_res2.values() for kind in stage} == {plain}
    assert kinds(temporal="conv")["layer4"] == [context, "TemporalConv", context]
    assert kinds(temporal="none")["layer4"] == [context, plain, context]


@pytest.mark.parametrize("options", [{}, {"dual_head": False}], ids=str)
@pytest.mark.parametrize("frames", [8, 16])
def test_no_parameter_is_unused(options: dict[str, Any], frames: int) -> None:
    """Each gradient is there, and none is zero once the branches that start at zero are open."""
    model = small(**options).double()
    for name, parameter in model.named_parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
            assert name.endswith(("bn3.weight", "bias", "offset.weight"))
    logits = model(torch.randn(2, 3, frames, 64, 64, dtype=torch.float64))
    torch.stack([head.square().sum() for head in logits]).sum().backward()
    # With 8 frames the second head sees one frame only, and its SIFA has no pair to attend in.
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert all(p.grad is not None for p in model.parameters())
    assert idle == ({"layer4_dual.1.temporal.offset.weight"} if frames == 8 and not options else set())


def test_batches_and_clips_do_not_mix() -> None:
    """In validation the logits of a clip do not depend on the other clips of the batch."""
    model = open_branches(small().eval().double(), 0.1)
    batch = torch.randn(3, 3, 16, 40, 40, dtype=torch.float64)
    with torch.no_grad():
        together, alone = model(batch), model(batch[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b)


def test_the_order_of_feature_frames_matters_to_sifa_alone() -> None:
    model = open_branches(small(dropout_ratio=0.0).double(), 1.0)  # BatchNorm's statistics know no order
    clip = torch.randn(2, 3, 16, 40, 40, dtype=torch.float64)
    backwards = clip.unflatten(2, (4, 4)).flip(2).flatten(2, 3)  # the stem's features in reverse, nothing else
    with torch.no_grad():
        forth, back = model(clip)[0], model(backwards)[0]
        assert (forth - back).abs().max() > 1e-3 * forth.abs().max()
        silence(model)
        torch.testing.assert_close(model(clip)[0], model(backwards)[0])


def open_branches(model: Network, scale: float) -> Network:
    """Residual branches start at zero, and a test of them would see nothing."""
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):
            nn.init.constant_(parameter, scale)
    return model


def _add_nothing(clip: Tensor, *, residual: bool = False) -> Tensor:
    return clip if residual else torch.zeros_like(clip)


def silence(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, InterFrameAttention):
            module.forward = _add_nothing  # type: ignore[method-assign]
        elif isinstance(module, GlobalContext):
            nn.init.zeros_(module.fc2.weight)
            nn.init.zeros_(module.fc2.bias)


def test_a_still_clip_without_sifa_is_an_image_in_torchvisions_resnet() -> None:
    """ImageNet weights are used as ImageNet meant them: frame by frame the same features."""
    image_model = torchvision.models.resnet50().double().eval()
    for module in image_model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    model = build_model("c2d_sifa_resnet50", num_classes=1000, clip_length=8).double().eval()
    assert isinstance(model, SIFANet)
    load_imagenet_state_dict(model, image_model.state_dict())
    with torch.no_grad():
        model.fc.weight.copy_(image_model.fc.weight)
        model.fc.bias.copy_(image_model.fc.bias)
    silence(model)
    seen: list[Tensor] = []
    model.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = torch.randn(2, 3, 64, 80, dtype=torch.float64)
    expected = nn.Sequential(*list(image_model.children())[:-2])
    with torch.no_grad():
        logits = model(image[:, :, None].expand(-1, -1, 8, -1, -1))
        for frame in range(2):
            torch.testing.assert_close(seen[0][:, frame], expected(image))
        torch.testing.assert_close(logits[0], image_model(image))


# SIFA.md, section 4: counted on the release's models.
@pytest.mark.parametrize(
    ("depth", "frames", "size", "gmacs"),
    [(50, 16, 224, 23.90), (50, 16, 256, 31.22), (101, 16, 256, 50.95), (50, 32, 256, 62.43), (50, 64, 256, 124.86)],
)
def test_multiply_adds(depth: int, frames: int, size: int, gmacs: float) -> None:
    with torch.device("meta"):
        model = build_model(f"c2d_sifa_resnet{depth}", num_classes=400, clip_length=frames)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, frames, size, size))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.005)


def test_parameters() -> None:
    with torch.device("meta"):
        model = build_model("c2d_sifa_resnet50", num_classes=400, clip_length=16)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(43.04, abs=0.005)


def test_width_scales_every_stage() -> None:
    model = small(width=16)
    assert isinstance(model, SIFANet)
    assert model.conv1.weight.shape == (16, 12, 7, 7)
    assert model.fc.in_features == 16 * 32
    offsets = [m.offset for m in model.modules() if isinstance(m, InterFrameAttention)]
    assert {offset.in_channels for offset in offsets if offset is not None} == {32, 64, 128}


def test_sifa_kernel_goes_by_stage() -> None:
    model = small(sifa_kernel=(1, 3, 5, 7))
    sizes = {
        name: {m.kernel_size for m in stage.modules() if isinstance(m, InterFrameAttention)}
        for name, stage in model.named_children()
        if name.startswith("layer")
    }
    assert sizes == {"layer1": set(), "layer2": {3}, "layer3": {5}, "layer4": {7}, "layer4_dual": {7}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_length": 12}, r"positive multiple of 8 \(4 in the stem, 2 in the dual head\), got 12"),
        ({"clip_length": 6, "dual_head": False}, r"positive multiple of 4 \(the stem .*\), got 6"),
        ({"sifa_kernel": (3, 3)}, r"sifa_kernel must have four sizes, for res2\.\.res5, got \(3, 3\)"),
        ({"stages": ["res3", "res6"]}, r"stages must be among res2, .*res5, got \('res3', 'res6'\)"),
        ({"temporal": "lstm"}, "temporal must be one of sifa, .*none, got 'lstm'"),
        ({"offset": "flow"}, "offset must be one of motion_saliency, .*regular, got 'flow'"),
        ({"sifa_kernel": (1, 2, 3, 3)}, r"sifa_kernel must be odd sizes between 1 and 255, got \(1, 2, 3, 3\)"),
        ({"sifa_kernel": (3, 3, 3, 301)}, r"sifa_kernel must be odd sizes between 1 and 255, got \(3, 3, 3, 301\)"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 32, 32), r"must be \(N, 3, T, H, W\), got \(2, 3, 32, 32\)"),
        ((2, 8, 3, 32, 32), r"must be \(N, 3, T, H, W\), got \(2, 8, 3, 32, 32\)"),
        ((2, 3, 12, 32, 32), "positive multiple of 8 .*, got 12"),
        ((2, 3, 0, 32, 32), "positive multiple of 8 .*, got 0"),
    ],
)
def test_inputs_that_cannot_be(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small()(torch.zeros(shape))


def test_activation_checkpointing_changes_nothing_but_memory() -> None:
    """Gradients, and BatchNorm's statistics, which the second computation of a block must not move again."""
    frugal = small(clip_length=8, activation_checkpointing=True, dropout_ratio=0.0)
    plain = small(clip_length=8, dropout_ratio=0.0)
    plain.load_state_dict(frugal.state_dict())
    clip, kept = torch.randn(2, 3, 8, 32, 32), []
    for model in (frugal, plain):
        bytes_kept = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal bytes_kept
            bytes_kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = torch.stack([head.logsumexp(1).sum() for head in model.train()(clip)]).sum()
        loss.backward()
        kept.append(bytes_kept)
    assert kept[0] < 0.5 * kept[1]
    for (name, one), other in zip(frugal.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6), name  # type: ignore[arg-type]
    for (name, statistic), other_statistic in zip(frugal.named_buffers(), plain.buffers(), strict=True):
        if statistic.is_floating_point():
            assert torch.equal(statistic, other_statistic), name
    assert all(m.momentum == 0.1 for m in frugal.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_activation_checkpointing_moves_synchronised_statistics_once() -> None:
    """In a single process SyncBatchNorm computes as BatchNorm does."""
    frugal = nn.SyncBatchNorm.convert_sync_batchnorm(small(activation_checkpointing=True, dropout_ratio=0.0))
    plain = small(dropout_ratio=0.0)
    plain.load_state_dict(frugal.state_dict())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frugal.modules())
    clip = torch.randn(2, 3, 8, 32, 32)
    for model in (frugal, plain):
        backward(model, clip)
    assert_same_statistics(frugal, plain)


@pytest.mark.parametrize("breaks", [False, True], ids=["whole", "in parts"])
def test_activation_checkpointing_compiled(breaks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the network that is neither: gradients, and statistics that move once, whether or not blocks break the graph.

    Traced and partitioned for the backward pass alone: compiled code is not this project's.
    """
    if breaks:
        forward = ClipBottleneck.forward

        def broken(block: ClipBottleneck, clip: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return forward(block, clip)

        monkeypatch.setattr(ClipBottleneck, "forward", broken)
    # Fewer blocks, because tracing takes long.
    monkeypatch.setitem(models.NETWORKS, "c2d_sifa_resnet50", (SIFANet, SIFANetOptions(depths=(1, 2, 1, 2))))
    torch._dynamo.reset()
    frugal = open_branches(small(activation_checkpointing=True, dropout_ratio=0.0), 0.3)
    plain = small(dropout_ratio=0.0)
    plain.load_state_dict(frugal.state_dict())
    clip = torch.randn(2, 3, 16, 32, 32)
    frugal.compile(backend="aot_eager", fullgraph=not breaks)
    for model in (frugal, plain):
        backward(model, clip)
    for (name, one), other in zip(frugal.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5), name  # type: ignore[arg-type]
    assert_same_statistics(frugal, plain)


def backward(model: nn.Module, clip: Tensor) -> None:
    torch.stack([head.logsumexp(1).sum() for head in model.train()(clip)]).sum().backward()


def assert_same_statistics(one: nn.Module, other: nn.Module) -> None:
    for (name, statistic), expected in zip(one.named_buffers(), other.buffers(), strict=True):
        if statistic.is_floating_point():
            torch.testing.assert_close(statistic, expected, rtol=1e-5, atol=1e-6, msg=name)
