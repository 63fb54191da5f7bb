"""The temporal modules and the choice among them."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from cuda_sifa import inter_frame_attention
from models import build_model
from models.sifa import InterFrameAttention
from models.sifa_resnet import ClipBottleneck
from models.temporal import (
    STAGES,
    TemporalConv,
    TemporalCorrelation,
    TemporalDifference,
    TemporalModelling,
    TemporalShift,
)


def modelling(**changes: Any) -> TemporalModelling:
    return TemporalModelling(
        **{
            "stages": ["res3", "res5"],
            "sifa_kernel": [1, 3, 5, 7],
            "temporal": "sifa",
            "offset": "motion_saliency",
            "offset_init": "zero",
            **changes,
        }
    )


def test_temporal_convolution_is_one_over_frames() -> None:
    module = TemporalConv(5).double()
    clip = torch.randn(2, 4, 5, 3, 7, dtype=torch.float64)
    assert not module(clip).any()
    nn.init.normal_(module.conv.weight)
    expected = nn.functional.conv3d(clip.transpose(1, 2), module.conv.weight[..., None], padding=(1, 0, 0))
    torch.testing.assert_close(module(clip).transpose(1, 2), expected)


def test_temporal_shift_frame_by_frame() -> None:
    clip = torch.randn(2, 3, 17, 2, 5)
    shifted = clip + TemporalShift()(clip)
    zeros = torch.zeros(2, 2, 2, 5)
    for t in range(3):
        torch.testing.assert_close(shifted[:, t, :2], clip[:, t - 1, :2] if t > 0 else zeros)
        torch.testing.assert_close(shifted[:, t, 2:4], clip[:, t + 1, 2:4] if t < 2 else zeros)
        assert torch.equal(shifted[:, t, 4:], clip[:, t, 4:])


def test_temporal_correlation_position_by_position() -> None:
    n, frames, channels, height, width, k = 2, 3, 5, 4, 6, 3
    module = TemporalCorrelation(channels, k).double()
    clip = torch.randn(n, frames, channels, height, width, dtype=torch.float64)
    assert not module(clip).any()
    weight = nn.init.normal_(module.conv.weight)[:, :, 0, 0]  # (channels, k*k)
    expected = torch.zeros_like(clip)
    for i, t, y, x in product(range(n), range(frames - 1), range(height), range(width)):
        similar = torch.zeros(k * k, dtype=torch.float64)
        for row, column in product(range(k), range(k)):
            at = y + row - 1, x + column - 1
            if 0 <= at[0] < height and 0 <= at[1] < width:
                similar[row * k + column] = clip[i, t, :, y, x] @ clip[i, t + 1, :, at[0], at[1]] / channels
        expected[i, t, :, y, x] = weight @ similar
    torch.testing.assert_close(module(clip), expected)


def test_correlation_weights_the_values_of_sifa_with_a_regular_neighbourhood() -> None:
    """SIFA_R is the sum over taps of correlation times value: the same products in both."""
    clip = torch.randn(1, 2, 6, 4, 5, dtype=torch.float64)
    module = TemporalCorrelation(6).double()
    following = nn.functional.pad(clip[:, 1], (1, 1, 1, 1))
    total = torch.zeros_like(clip[:, 0])
    for tap in range(9):
        with torch.no_grad():
            module.conv.weight.zero_()[:, tap] = 1
        value = following[..., tap // 3 : tap // 3 + 4, tap % 3 : tap % 3 + 5]
        total += module(clip)[:, 0] * value
    torch.testing.assert_close(total, inter_frame_attention(clip, None, 3)[:, 0])


def test_correlation_of_large_features_in_half_precision_does_not_overflow() -> None:
    clip = torch.full((1, 2, 8, 3, 3), 200.0, dtype=torch.float16)  # 40,000 each, eight of them: above 65,504
    module = TemporalCorrelation(8, 1).half()
    nn.init.ones_(module.conv.weight)
    assert module(clip)[:, 0].isfinite().all()


def test_temporal_difference_frame_by_frame() -> None:
    module = TemporalDifference(5).double()
    clip = torch.randn(2, 3, 5, 4, 6, dtype=torch.float64)
    assert not module(clip).any()
    nn.init.dirac_(module.conv.weight)  # then the difference itself
    assert torch.equal(module(clip)[:, :2], clip[:, 1:] - clip[:, :-1])
    for weight in module.parameters():
        nn.init.normal_(weight)
    expected = torch.zeros_like(clip)
    for t in range(2):
        for channel in range(5):
            kernel = module.align.weight[channel, 0]
            taps = nn.functional.pad(clip[:, t + 1, channel], (1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)
            difference = (taps * kernel).sum((-2, -1)) - clip[:, t, channel]  # (N, H, W)
            expected[:, t] += module.conv.weight[:, channel, 0, 0][:, None, None] * difference[:, None]
    torch.testing.assert_close(module(clip), expected)


@pytest.mark.parametrize("module", [TemporalCorrelation(3), TemporalDifference(3)], ids=["correlation", "difference"])
def test_correlation_and_difference_have_the_gradient_that_autograd_checks(module: nn.Module) -> None:
    module = module.double()
    for weight in module.parameters():
        nn.init.normal_(weight)
    clip = torch.randn(1, 3, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, clip)


@pytest.mark.parametrize(
    "module",
    [TemporalConv(8), TemporalShift(), TemporalCorrelation(8), TemporalDifference(8), InterFrameAttention(8)],
    ids=lambda m: type(m).__name__,
)
def test_one_frame_is_enough(module: nn.Module) -> None:
    """Every weight has a gradient all the same, which distributed training waits for."""
    attended = module(torch.randn(2, 1, 8, 4, 3))
    assert attended.shape == (2, 1, 8, 4, 3)
    if weights := list(module.parameters()):
        attended.sum().backward()
        assert all(weight.grad is not None for weight in weights)


@pytest.mark.parametrize(("temporal", "weights"), [("correlation", ["conv"]), ("difference", ["align", "conv"])])
def test_an_initialisation_of_the_whole_network_leaves_the_clip_as_it_is(temporal: str, weights: list[str]) -> None:
    model = build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=4, stages=["res5"], temporal=temporal)
    block = model.stage_blocks("res5")[1]
    assert isinstance(block, ClipBottleneck)
    assert block.temporal is not None
    assert sorted(name for name, _ in block.temporal.named_children()) == weights
    assert not block.temporal(torch.randn(2, 2, 32, 3, 3)).any()
    assert modelling(temporal="correlation").module("res4", 4).kernel_size == 5  # type: ignore[union-attr]


def test_sifa_takes_the_size_of_its_stage() -> None:
    for stage, size in zip(STAGES, (1, 3, 5, 7), strict=True):
        module = modelling(offset="next_frame", offset_init="kaiming").module(stage, 6)
        assert isinstance(module, InterFrameAttention)
        assert (module.kernel_size, module.offset_source, module.offset_init) == (size, "next_frame", "kaiming")


def test_centre_is_the_co_located_position_alone() -> None:
    module = modelling(temporal="centre").module("res5", 6)
    assert module is not None
    assert not list(module.parameters())
    clip = torch.randn(1, 3, 6, 4, 5)
    now, following = clip[:, 0], clip[:, 1]
    expected = (now * following).mean(1, keepdim=True) * following
    torch.testing.assert_close(module(clip)[:, 0], expected)
    torch.testing.assert_close(module(clip), inter_frame_attention(clip, None, 1))


@pytest.mark.parametrize(
    "option", [{"branch_scale": 0.5}, {"branch_scale": 0.0}, {"cosine": True}, {"projection": True}], ids=str
)
def test_changes_go_to_attention_alone(option: dict[str, Any]) -> None:
    (name,) = option
    for temporal in ("sifa", "centre"):
        module = modelling(temporal=temporal, **option).module("res5", 6)
        assert isinstance(module, InterFrameAttention)
        has = (module.branch_scale, module.cosine, module.projection is not None)
        assert has == (option.get("branch_scale"), name == "cosine", name == "projection")
        assert (module.scale is not None) == (name == "branch_scale")
    with pytest.raises(ValueError, match=f"temporal shift has no attention, so it does not go with {name}"):
        modelling(temporal="shift", **option)
    with pytest.raises(ValueError, match=f"{name} is for SIFA-Net"):
        build_model("c2d_sifa_swin_vit_s_p4_w7", num_classes=3, clip_length=4, width=6, **option)


def test_stages_by_name() -> None:
    assert [modelling().covers(stage) for stage in STAGES] == [False, True, False, True]
    assert modelling(temporal="none").module("res3", 6) is None
