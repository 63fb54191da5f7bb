"""Inter-frame attention as a module."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cuda_sifa import inter_frame_attention
from models.sifa import InterFrameAttention, motion_saliency


def predictor(attention: InterFrameAttention) -> nn.Conv2d:
    assert attention.offset is not None
    return attention.offset


def test_motion_saliency_by_hand() -> None:
    clip = torch.tensor([1.0, 3.0, 2.0]).view(1, 3, 1, 1, 1)
    by_hand = [3 / (1 + 2.718281828**-2) + 3, 2 / (1 + 2.718281828**1) + 2]  # steps of +2 and -1
    assert motion_saliency(clip).flatten().tolist() == pytest.approx(by_hand)


def test_starts_as_the_regular_neighbourhood() -> None:
    clip = torch.randn(2, 4, 6, 5, 7)
    torch.testing.assert_close(InterFrameAttention(6, 5)(clip), inter_frame_attention(clip, None, 5))


def test_offsets_displace_the_taps_of_the_next_frame() -> None:
    """A convolution that finds motion saliency of 1 everywhere and asks for one pixel to the right."""
    attention = InterFrameAttention(1, 1)
    clip = torch.randn(1, 2, 1, 4, 5)
    with torch.no_grad():
        predictor(attention).weight[1, 0, 1, 1] = 1.0
    predictor(attention).register_forward_pre_hook(lambda module, inputs: (torch.ones_like(inputs[0]),))
    right = torch.nn.functional.pad(clip[:, 1, :, :, 1:], (0, 1))
    expected = clip[:, 0] * right * right
    torch.testing.assert_close(attention(clip)[:, 0], expected)
    assert not attention(clip)[:, 1].any()


def test_the_releases_initialisation_is_an_option() -> None:
    weight = predictor(InterFrameAttention(64, 3, offset_init="kaiming")).weight
    assert weight.std().item() == pytest.approx((2 / (18 * 9)) ** 0.5, rel=0.05)  # 0.11, of fan_out


def test_branch_scale_is_a_factor_of_each_channel() -> None:
    plain, scaled = InterFrameAttention(6), InterFrameAttention(6, branch_scale=0.25)
    clip = torch.randn(2, 3, 6, 4, 5)
    assert scaled.scale is not None
    torch.testing.assert_close(scaled(clip), plain(clip) * 0.25)
    with torch.no_grad():
        scaled.scale[2] = 3.0
    torch.testing.assert_close(scaled(clip)[:, :, 2], plain(clip)[:, :, 2] * 3)
    scaled.reset_parameters()
    assert torch.equal(scaled.scale, torch.full((6,), 0.25))
    assert list(plain.state_dict()) == ["offset.weight"]  # off by default: no weight, no other name
    with pytest.raises(ValueError, match="branch_scale must be a finite number of at least 0, got nan"):
        InterFrameAttention(6, branch_scale=float("nan"))


def test_cosines_weigh_features_of_unit_length() -> None:
    clip = torch.randn(2, 3, 6, 4, 5) * 50
    frame, following = (
        nn.functional.normalize(clip[:, frames].unflatten(2, (2, 3)), dim=3) for frames in (slice(0, 2), slice(1, 3))
    )
    centre = InterFrameAttention(6, 1, groups=2, offset="regular", cosine=True)
    cosines = (frame * following).sum(3, keepdim=True)
    expected = (cosines * following * 3**0.5).flatten(2, 3)  # the mean of the three squares is 1
    torch.testing.assert_close(centre(clip)[:, :-1], expected)
    assert torch.equal(centre(clip, residual=True), clip + centre(clip))
    neighbourhood = InterFrameAttention(6, 3, groups=2, offset="regular", cosine=True)
    assert neighbourhood(clip).abs().max() <= 3**0.5  # a mean of nine
    torch.testing.assert_close(neighbourhood(10 * clip), neighbourhood(clip))
    assert not neighbourhood(torch.zeros(clip.shape)).any()


def test_offsets_and_values_are_of_the_same_features() -> None:
    attention = InterFrameAttention(6, cosine=True, offset_init="kaiming")
    clip = torch.randn(2, 3, 6, 4, 5)
    features = attention.features(clip)
    plain = InterFrameAttention(6)
    plain.load_state_dict(attention.state_dict())
    torch.testing.assert_close(attention.predict_offset(clip), plain.predict_offset(features))
    torch.testing.assert_close(attention(clip), plain(features) / 9)


def test_squares_of_large_half_numbers_stay_finite() -> None:
    clip = torch.full((1, 2, 6, 4, 5), 1000.0).half()
    torch.testing.assert_close(InterFrameAttention(6, cosine=True).features(clip), torch.ones_like(clip))


def test_a_projection_follows_attention_and_starts_at_zero() -> None:
    plain, projected = InterFrameAttention(6), InterFrameAttention(6, projection=True)
    clip = torch.randn(2, 3, 6, 4, 5)
    assert projected.projection is not None
    assert not projected(clip).any()
    nn.init.normal_(projected.projection.weight)
    expected = torch.einsum("oc,ntchw->ntohw", projected.projection.weight[:, :, 0, 0], plain(clip))
    torch.testing.assert_close(projected(clip), expected)
    torch.testing.assert_close(projected(clip, residual=True), clip + expected)
    projected.reset_parameters()
    assert not projected(clip).any()
    regular = InterFrameAttention(6, offset="regular", projection=True)
    with pytest.raises(ValueError, match=re.escape("torch.float32, got torch.float64")):
        regular(clip.double())
    with pytest.raises(ValueError, match="T, H and W above 0"):
        regular(clip[..., :0])


def by_definition(source: str, clip: Tensor, weight: Tensor) -> Tensor:
    """Offsets of frames 1..T-1, a frame at a time."""
    if source == "conv3d":
        kernel = weight.unflatten(1, (3, -1)).transpose(1, 2)
        return nn.functional.conv3d(clip.transpose(1, 2), kernel, padding=1).transpose(1, 2)[:, 1:]
    seen = {
        "next_frame": lambda now, following: following,
        "difference": lambda now, following: following - now,
        "motion_saliency": lambda now, following: (1 + (following - now).sigmoid()) * following,
    }[source]
    pairs = zip(clip.unbind(1)[:-1], clip.unbind(1)[1:], strict=True)
    return torch.stack([nn.functional.conv2d(seen(*pair), weight, padding=1) for pair in pairs], dim=1)


@pytest.mark.parametrize("source", ["motion_saliency", "difference", "next_frame", "conv3d"])
def test_what_predicts_the_offsets(source: Any) -> None:
    attention = InterFrameAttention(4, 3, offset=source, offset_init="kaiming").double()
    clip = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    offset = attention.predict_offset(clip)
    assert offset is not None
    torch.testing.assert_close(offset, by_definition(source, clip, predictor(attention).weight))
    torch.testing.assert_close(attention(clip), inter_frame_attention(clip, offset, 3))


def test_the_regular_neighbourhood_needs_no_parameters() -> None:
    attention = InterFrameAttention(4, 5, offset="regular")
    assert not list(attention.parameters())
    clip = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(attention(clip), inter_frame_attention(clip, None, 5))


@pytest.mark.parametrize("source", ["motion_saliency", "difference", "next_frame", "conv3d"])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_gradient_reaches_the_offsets_whatever_the_number_of_frames(frames: int, source: Any) -> None:
    attention = InterFrameAttention(4, 3, offset=source)
    attention(torch.randn(2, frames, 4, 5, 6)).square().sum().backward()
    gradient = predictor(attention).weight.grad
    assert gradient is not None
    assert gradient.any() == (frames > 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be positive, got 0"),
        ({"groups": 3}, "groups must be positive and divide the channels of x, got groups=3 for C=4"),
        ({"groups": 0}, "groups must be positive and divide the channels of x, got groups=0 for C=4"),
        ({"dilation": 0}, "dilation must be between 1 and 65535, got 0"),
        ({"kernel_size": 2}, "kernel_size must be odd and between 1 and 255, got 2"),
        ({"kernel_size": 0}, "kernel_size must be odd and between 1 and 255, got 0"),
        ({"kernel_size": 301}, "kernel_size must be odd and between 1 and 255, got 301"),
        ({"branch_scale": 0.0, "projection": True}, "branch_scale and projection exclude each other"),
        ({"offset": "flow"}, "offset must be one of motion_saliency, .*regular, got 'flow'"),
        ({"offset_init": "ones"}, "offset_init must be .*zero.*kaiming.*, got 'ones'"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InterFrameAttention(**{"channels": 4, **options})


CLIPS = {
    "frames and channels swapped": (torch.zeros(2, 4, 8, 5, 6), "with C = 4, got (2, 4, 8, 5, 6)"),
    "a single clip": (torch.zeros(8, 4, 5, 6), "with C = 4, got (8, 4, 5, 6)"),
    "no pixels": (torch.zeros(2, 3, 4, 0, 6), "with T, H and W above 0, got (2, 3, 4, 0, 6)"),
    "no frames": (torch.zeros(2, 0, 4, 5, 6), "with T, H and W above 0, got (2, 0, 4, 5, 6)"),
    "doubles": (torch.zeros(2, 3, 4, 5, 6).double(), "dtype of the module's weights, torch.float32, got torch.float64"),
    "halves": (torch.zeros(2, 3, 4, 5, 6).half(), "dtype of the module's weights, torch.float32, got torch.float16"),
}


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_that_does_not_fit(name: str) -> None:
    clip, message = CLIPS[name]
    with pytest.raises(ValueError, match=f"^clip must .*{re.escape(message)}$"):
        InterFrameAttention(4)(clip)


def test_without_offsets_the_channels_count_as_well() -> None:
    attention = InterFrameAttention(4, offset="regular")
    with pytest.raises(ValueError, match=re.escape("with C = 4, got (2, 4, 8, 5, 6)")):
        attention(torch.zeros(2, 4, 8, 5, 6))
    assert attention(torch.zeros(2, 3, 4, 0, 6)).shape == (2, 3, 4, 0, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frames", [1, 3])
def test_autocast_takes_a_clip_of_either_dtype(dtype: torch.dtype, frames: int) -> None:
    """On a GPU norms give float32 and convolutions half, so that both kinds of clip occur in one network."""
    with torch.autocast("cpu", torch.bfloat16):
        clip = torch.randn(2, frames, 4, 5, 6, dtype=dtype)
        for changed in (False, True):
            assert InterFrameAttention(4, cosine=changed, projection=changed)(clip).dtype == dtype
        with pytest.raises(ValueError, match=re.escape("torch.float32, got torch.float64")):
            InterFrameAttention(4)(torch.zeros(2, frames, 4, 5, 6, dtype=torch.float64))


def test_offsets_are_not_rounded_under_autocast() -> None:
    """bfloat16 places a tap 3 pixels away by steps of 1/64 pixel."""
    attention = InterFrameAttention(4, offset_init="kaiming")
    clip = torch.randn(2, 3, 4, 5, 6).bfloat16()
    expected = attention.predict_offset(clip.float())
    with torch.autocast("cpu", torch.bfloat16):
        offset = attention.predict_offset(clip)
        loss = attention(clip).float().square().sum()
    assert offset is not None
    assert expected is not None
    assert offset.dtype == torch.float32
    assert not torch.equal(offset, offset.bfloat16().float())
    # What is left is the rounding of the saliency map, which has the clip's dtype.
    torch.testing.assert_close(offset, expected, rtol=0, atol=0.02 * expected.std().item())
    loss.backward()
    assert attention.offset is not None
    assert attention.offset.weight.grad is not None
    assert attention.offset.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("changed", [False, True])
def test_checks_of_a_clip_leave_tracing_alone(changed: bool) -> None:
    """One graph for all sizes, whatever is checked on the way; autocast included."""
    attention = InterFrameAttention(4, offset_init="kaiming", cosine=changed, projection=changed)
    if attention.projection is not None:
        nn.init.normal_(attention.projection.weight)
    graphs = 0

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(attention, backend=count, fullgraph=True, dynamic=True)
    for n, t, h, w in ((2, 3, 5, 6), (3, 4, 7, 5), (2, 6, 9, 8)):
        clip = torch.randn(n, t, 4, h, w)
        torch.testing.assert_close(compiled(clip), attention(clip))
    assert graphs == 1
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(clip), attention(clip))
    torch.compiler.reset()

    sizes = {axis: torch.export.Dim(name) for axis, name in ((0, "n"), (3, "h"), (4, "w"))}
    program = torch.export.export(attention, (torch.randn(3, 6, 4, 5, 7),), dynamic_shapes=(sizes,))
    torch.testing.assert_close(program.module()(clip), attention(clip))
