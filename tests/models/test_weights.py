"""Weights from elsewhere: what is taken, where it goes, and what is refused."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from models import build_model, load_imagenet_state_dict, load_release_state_dict
from models.sifa_resnet import SIFANet
from tests.models.golden import MODELS, release_state_dict

CASE = MODELS["sifa_net_r50_k5"]


def network() -> SIFANet:
    model = build_model(
        CASE["net_name"], num_classes=CASE["num_classes"], clip_length=8, sifa_kernel=CASE["sifa_kernel"]
    )
    assert isinstance(model, SIFANet)
    return model


@pytest.fixture(scope="module")
def release() -> dict[str, Tensor]:
    return release_state_dict(CASE)


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Tensor]:
    return torchvision.models.resnet50().state_dict()


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_release_names_may_carry_the_prefix_of_ddp(release: dict[str, Tensor]) -> None:
    plain, prefixed = network(), network()
    load_release_state_dict(plain, release)
    load_release_state_dict(prefixed, {f"module.{name}": value for name, value in release.items()})
    assert unchanged(prefixed, values(plain))


@pytest.mark.parametrize("shape", [(), (128, 2, 5, 5), (1, 64, 3, 3)], ids=str)
def test_the_constant_of_the_correlation_is_dropped_whatever_its_shape(
    release: dict[str, Tensor], shape: tuple[int, ...]
) -> None:
    constants = [name for name in release if name.endswith("def_cor.weight")]
    assert constants
    model = network()
    load_release_state_dict(model, {**release, **{name: torch.full(shape, torch.nan) for name in constants}})
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_every_kernel_of_the_release_arrives(release: dict[str, Tensor]) -> None:
    model = network()
    load_release_state_dict(model, release)
    stem = release["conv1.weight"].float()
    assert torch.equal(model.conv1.weight[:, 2 * 4 + 1], stem[:, 2, 1])  # channel 2 of frame 1
    for ours, theirs in (
        ("layer3.1.conv2.weight", "layer3.1.conv2.weight"),
        ("layer4_dual.2.context.fc1.bias", "layer4_dual.2.fc1.bias"),
        ("layer2.3.temporal.offset.weight", "layer2.3.conv_offset.weight"),
        ("layer1.0.downsample.1.running_var", "layer1.0.downsample.1.running_var"),
    ):
        value = release[theirs].float()
        assert torch.equal(model.state_dict()[ours], value.squeeze(2) if value.dim() == 5 else value), ours


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2.0.conv1.weight": None}, r"missing: layer2\.0\.conv1\.weight$"),
        ({"layer2.0.conv9.weight": torch.zeros(1)}, r"unexpected: layer2\.0\.conv9\.weight$"),
        ({"fc.bias": torch.zeros(7)}, r"misshapen: fc\.bias \(7,\) instead of \(10,\)$"),
        ({"layer3.1.conv2.weight": torch.zeros(256, 256, 3, 3, 3)}, r"misshapen: layer3\.1\.conv2\.weight \(256,"),
        ({"fc.bias": None, "extra": torch.zeros(1)}, r"missing: fc\.bias; unexpected: extra$"),
    ],
)
def test_a_checkpoint_of_the_release_fits_or_is_refused_whole(
    release: dict[str, Tensor], change: dict[str, Any], message: str
) -> None:
    model = network()
    before = values(model)
    state = {name: value for name, value in {**release, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=f"the release's checkpoint does not fit this model; .*{message}"):
        load_release_state_dict(model, state)
    assert unchanged(model, before)


def test_a_long_list_of_differences_is_cut_short(release: dict[str, Tensor]) -> None:
    state = {name: value for name, value in release.items() if not name.startswith("layer4_dual.")}
    with pytest.raises(ValueError, match=r"missing: layer4_dual\.0\.conv1\.weight, .* and \d+ more$"):
        load_release_state_dict(network(), state)


def test_imagenet_weights_are_inflated(imagenet: dict[str, Tensor]) -> None:
    model = network()
    before = values(model)
    load_imagenet_state_dict(model, imagenet)
    stem = model.conv1.weight.unflatten(1, (3, 4))
    assert torch.equal(stem[:, :, 2], imagenet["conv1.weight"])
    assert not stem[:, :, [0, 1, 3]].any()
    after = model.state_dict()
    for name, value in imagenet.items():
        if name.startswith("layer4."):
            assert torch.equal(after[name.replace("layer4.", "layer4_dual.")], value), name
        if not name.startswith(("fc.", "conv1.")):
            assert torch.equal(after[name], value), name
    own = [name for name in after if ".temporal." in name or ".context." in name or name.startswith("fc")]
    assert all(torch.equal(after[name], before[name]) for name in own)
    assert len(own) == 4 + (2 + 3 + 1 + 1) + 4 * (
        2 + 3 + 2 + 2
    )  # classifiers; offsets and contexts of res3, res4, res5 twice


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, r"missing: layer1\.0\.conv1\.weight$"),
        ({"layer5.weight": torch.zeros(1)}, r"unexpected: layer5\.weight$"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"misshapen: conv1\.weight \(64, 12, 3, 3\) instead"),
    ],
)
def test_imagenet_weights_fit_or_are_refused_whole(
    imagenet: dict[str, Tensor], change: dict[str, Any], message: str
) -> None:
    model = network()
    before = values(model)
    state = {name: value for name, value in {**imagenet, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=f"the ImageNet ResNet does not fit this model; .*{message}"):
        load_imagenet_state_dict(model, state)
    assert unchanged(model, before)


def test_another_depth_is_refused(imagenet: dict[str, Tensor]) -> None:
    model = build_model("c2d_sifa_resnet101", num_classes=5, clip_length=8)
    with pytest.raises(ValueError, match=r"missing: layer3\.6\.conv1\.weight"):
        load_imagenet_state_dict(model, imagenet)
