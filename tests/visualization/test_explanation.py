"""What is drawn is what the network did: points, weights, saliency, Grad-CAM and where all of it is in the clip."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

import models
from models.network import Grid
from tests.tiny import SETTINGS, build
from visualization import Attention, Explanation, explain

CLIP = (1, 3, 16, 48, 64)


def network(net_name: str = "c2d_sifa_resnet50", width: int = 4, **sifa: Any) -> models.Network:
    torch.manual_seed(0)
    settings: dict[str, Any] = copy.deepcopy(SETTINGS)
    settings["network"] = {"net_name": net_name, "width": width}
    settings["SIFA"] = sifa
    return build(settings)[0]


def sampled(attention: Attention, clip: Tensor) -> Tensor:
    """The samples of frame t+1 at an attention's points: (T-1, k*k, C, H, W), by PyTorch's own sampling."""
    height, width = clip.shape[-2:]
    points = torch.from_numpy(attention.points).double()  # (T-1, k*k, 2, H, W)
    scale = torch.tensor([height - 1, width - 1])[:, None, None]
    places = (2 * points / scale - 1).flip(2).movedim(2, -1)
    samples = [
        grid_sample(clip[0, 1:], places[:, tap], padding_mode="zeros", align_corners=True)
        for tap in range(places.shape[1])
    ]
    return torch.stack(samples, 1)


@pytest.mark.parametrize(
    ("kernel", "dilation", "groups", "offset", "cosine"),
    [
        (3, 1, 1, "motion_saliency", False),
        (3, 2, 2, "conv3d", False),
        (5, 1, 1, "regular", False),
        (1, 1, 3, "difference", False),
        (3, 1, 2, "motion_saliency", True),
    ],
)
def test_points_and_weights_make_the_attention(
    kernel: int, dilation: int, groups: int, offset: Any, cosine: bool
) -> None:
    clip = torch.randn(1, 4, 6, 7, 9, dtype=torch.float64)
    options = {"dilation": dilation, "groups": groups, "offset": offset, "cosine": cosine}
    module = models.InterFrameAttention(6, kernel, **options).double()
    if module.offset is not None:
        torch.nn.init.normal_(module.offset.weight, std=0.3)
    with torch.no_grad():
        attention, expected = Attention.of("block", module, clip), module(clip)
        clip = module.features(clip)
    samples = sampled(attention, clip)
    heads = samples.unflatten(2, (groups, -1))
    query = clip[0, :-1, None].unflatten(2, (groups, -1))
    weights = (query * heads).sum(3) * groups / 6 / (kernel**2 if cosine else 1)  # (T-1, k*k, groups, H, W)
    torch.testing.assert_close(
        torch.from_numpy(attention.weights).double(), weights.mean(2), rtol=1e-4, atol=1e-5, check_dtype=False
    )
    attended = (weights.unsqueeze(3) * heads).sum(1).flatten(1, 2)
    torch.testing.assert_close(attended, expected[0, :-1], rtol=1e-4, atol=1e-4)
    assert (np.abs(attention.offsets).max() == 0) == (offset == "regular")
    saliency = ((clip[0, 1:] - clip[0, :-1]).sigmoid() - 0.5).abs().mean(1) * 2
    np.testing.assert_allclose(attention.saliency, saliency, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "width", "sifa_blocks"),
    [
        ("c2d_sifa_resnet50", 4, {"res3": [2, 4], "res4": [2, 4, 6], "res5": [2]}),
        ("c2d_sifa_swin_vit_s_p4_w7", 12, {"res2": [1], "res4": [1, 3, 5, 7, 9, 11, 13, 15, 17], "res5": [1, 2]}),
    ],
)
def test_each_stage_has_its_blocks_and_maps(name: str, width: int, sifa_blocks: dict[str, list[int]]) -> None:
    net, clip = network(name, width), torch.randn(CLIP)
    assert set(sifa_blocks) <= set(net.stages_with_sifa())
    with torch.no_grad():
        probability = torch.stack([head.softmax(1) for head in net(clip)]).mean(0)[0, 3]
    for stage, blocks in sifa_blocks.items():
        seen = explain(net, clip, stage, label=3)
        assert [attention.name for attention in seen.attentions] == [f"block {number}" for number in blocks]
        assert seen.grid.stride == 4 * 2 ** (int(stage[-1]) - 2)
        height, columns = -(-48 // seen.grid.stride), -(-64 // seen.grid.stride)
        assert seen.cam.shape == (4, height, columns)
        assert seen.attentions[0].weights.shape[2:] == (height, columns)
        assert (seen.label, seen.probability) == (3, pytest.approx(float(probability), rel=1e-5))
        assert 0 <= seen.cam.min() <= seen.cam.max() <= 1
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_without_a_label_it_is_the_predicted_one() -> None:
    net, clip = network(), torch.randn(CLIP)
    with torch.no_grad():
        predicted = torch.stack([head.softmax(1) for head in net(clip)]).mean(0).argmax()
    assert explain(net, clip, "res4").label == predicted


def test_grad_cam_of_the_last_stage_is_the_classifier_on_its_maps() -> None:
    """Behind res5 are only a mean and a linear layer: the gradient is the class's weights."""
    net, clip = network(), torch.randn(CLIP)
    maps: list[Tensor] = []
    hook = net.stage_blocks("res5")[-1].register_forward_hook(lambda _m, _i, output: maps.append(output))
    with torch.no_grad():
        net(clip)
    hook.remove()
    cam = torch.einsum("c,tchw->thw", net.get_parameter("fc.weight")[2].detach(), maps[0][0]).relu()
    assert cam.max() > 0
    np.testing.assert_allclose(explain(net, clip, "res5", label=2).cam, cam / cam.max(), atol=1e-5)


def test_stages_without_sifa_are_refused() -> None:
    with pytest.raises(ValueError, match="res2 of this network has no SIFA; it is in res3, res4, res5"):
        explain(network(), torch.randn(CLIP), "res2")


def test_a_position_is_the_centre_of_what_it_sees() -> None:
    net = network(stages=[])
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.bias, 5.0)  # so that ReLU lets everything through
    clip = torch.randn(1, 3, 8, 352, 352, requires_grad=True)
    caught: list[Tensor] = []
    net.stage_blocks("res3")[-1].register_forward_hook(lambda _m, _i, output: caught.append(output))
    net(clip)
    row, column, grid = 21, 22, net.grid("res3")
    (gradient,) = torch.autograd.grad(caught[0][0, 0, :, row, column].sum(), clip)
    seen = gradient.abs().sum((0, 1, 2)).nonzero()
    # Pooling chooses one of its pixels, so the borders may be a pooled pixel off.
    centre = (seen.amin(0) + seen.amax(0)) / 2
    assert np.abs(centre.numpy() - [grid.pixels(np.array(row)), grid.pixels(np.array(column))]).max() <= 2
    assert grid.nearest(8 * 21 + 3, 44) == 21
    assert grid.nearest(-5, 44) == 0
    assert grid.nearest(351, 44) == 43


# ---- Points through several blocks ----------------------------------------------------------------------------------


def explanation(offsets: list[float], weights: list[float], size: int = 9) -> Explanation:
    """Blocks with kernel 1, one after the other, that look `offset` rows down, each with one weight."""
    y, x = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    attentions = []
    for offset, weight in zip(offsets, weights, strict=True):
        points = np.stack([y + offset, x])[None, None].astype(float)
        saliency = np.zeros((1, size, size))
        attentions.append(Attention("block", points, points - [y, x], np.full((1, 1, size, size), weight), saliency))
    return Explanation("res3", Grid(8, 0.0), attentions, 0, 1.0, np.zeros((2, size, size)))


def test_points_go_from_the_last_block_to_the_first() -> None:
    seen = explanation([0.5, 2.3, 1.0], [0.2, 0.3, 0.5])
    for depth, row, weight in ((1, 5, 0.5), (2, 5 + 2.3, 0.15), (3, 7 + 0.5, 0.03)):
        points, weights = seen.stacked(0, 4, 3, depth)
        np.testing.assert_allclose(points, [[row, 3]])
        np.testing.assert_allclose(weights, [weight])


def test_points_outside_lead_nowhere() -> None:
    seen = explanation([-3.0, 6.0], [1.0, 1.0])
    assert len(seen.stacked(0, 2, 3, 1)[0]) == 1
    for depth in (1, 2):  # the last block's point is outside, whatever the first would make of it
        assert len(seen.stacked(0, 4, 3, depth)[0]) == 0


def test_regular_neighbourhoods_widen() -> None:
    net = network(offset="regular")
    seen = explain(net, torch.randn(1, 3, 8, 96, 96), "res4")
    points, weights = seen.stacked(0, 3, 3, 2)
    offsets, counts = np.unique(points - 3, axis=0, return_counts=True)
    expected = {(y, x): (3 - abs(y)) * (3 - abs(x)) for y in range(-2, 3) for x in range(-2, 3)}
    assert {tuple(map(int, offset)): count for offset, count in zip(offsets, counts, strict=True)} == expected
    first, second = seen.attentions[-2:]
    centre = (points == 3).all(1)
    by_hand = sum(
        second.weights[0, tap, 3, 3] * first.weights[0, 8 - tap, 3 + tap // 3 - 1, 3 + tap % 3 - 1] for tap in range(9)
    )
    assert weights[centre].sum() == pytest.approx(by_hand, rel=1e-5)


def test_the_strongest_motion_is_not_at_the_border() -> None:
    seen = explanation([0.0], [1.0])
    saliency = seen.attentions[-1].saliency
    saliency[0, 0, 4], saliency[0, 5, 2], saliency[0, 6, 6] = 0.9, 0.5, 0.4
    assert seen.strongest_motion() == seen.strongest_motion(0) == (0, 5, 2)
    still = replace(seen, attentions=[replace(seen.attentions[0], saliency=np.zeros((3, 9, 9)))])
    assert still.strongest_motion(2)[0] == 2
    tiny = explanation([0.0], [1.0], size=2)
    tiny.attentions[-1].saliency[0, 1, 0] = 0.3
    assert tiny.strongest_motion() == (0, 1, 0)
