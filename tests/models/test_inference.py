"""A network with folded BatchNorm computes what the network computes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import models
from models.inference import fold_batch_norms


@torch.no_grad()
def network(dtype: torch.dtype = torch.float64, **options: object) -> models.Network:
    """Narrow, with the statistics of a batch and random weights of BatchNorm, as after a training."""
    net = models.build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=4, **options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.2, 0.5)
            nn.init.normal_(module.bias, std=0.2)
    net(torch.randn(4, 3, 8, 32, 32))
    return net.to(dtype).eval()


@pytest.mark.parametrize("temporal", ["sifa", "conv"])
@torch.no_grad()
def test_the_same_logits(temporal: str) -> None:
    net, clips = network(temporal=temporal), torch.randn(2, 3, 8, 32, 36, dtype=torch.float64)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded = fold_batch_norms(net)
    for got, expected in zip(folded(clips), net(clips), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
    assert not any(isinstance(module, _BatchNorm) for module in folded.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), (
        "the original is as it was"
    )
    assert any(isinstance(module, _BatchNorm) for module in net.modules())


@torch.no_grad()
def test_float32_differs_by_roundings() -> None:
    net, clips = network(torch.float32), torch.randn(2, 3, 8, 32, 32)
    exact = copy.deepcopy(net).double()
    folded = fold_batch_norms(net)
    assert {parameter.dtype for parameter in folded.parameters()} == {torch.float32}
    assert folded.get_parameter("conv1.weight").is_contiguous(memory_format=torch.channels_last)
    for got, expected, true in zip(folded(clips), net(clips), exact(clips.double()), strict=True):
        rounding = (expected - true).abs().max()
        assert (got - true).abs().max() < 4 * rounding + 1e-6 * true.abs().max()


def test_a_transformer_has_nothing_to_fold() -> None:
    net = models.build_model("c2d_sifa_swin_vit_s_p4_w7", num_classes=3, clip_length=4, width=6).eval()
    folded = fold_batch_norms(net)
    assert folded is not net
    assert {name: value.shape for name, value in folded.state_dict().items()} == {
        name: value.shape for name, value in net.state_dict().items()
    }


def test_a_network_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="must be in eval mode"):
        fold_batch_norms(network().train())
