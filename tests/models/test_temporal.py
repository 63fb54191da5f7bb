"""The temporal modules and the choice among them."""

from typing import Any

import pytest
import torch
from torch import nn

from cuda_sifa import inter_frame_attention
from models.sifa import InterFrameAttention
from models.temporal import STAGES, TemporalConv, TemporalModelling, TemporalShift


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


@pytest.mark.parametrize(
    "module", [TemporalConv(8), TemporalShift(), InterFrameAttention(8)], ids=lambda m: str(m)[:12]
)
def test_one_frame_is_enough(module: nn.Module) -> None:
    assert module(torch.randn(2, 1, 8, 4, 3)).shape == (2, 1, 8, 4, 3)


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


def test_stages_by_name() -> None:
    assert [modelling().covers(stage) for stage in STAGES] == [False, True, False, True]
    assert modelling(temporal="none").module("res3", 6) is None
