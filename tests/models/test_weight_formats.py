"""The formats of weights: how each is recognised, and where its tensors go."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from models import load_imagenet_state_dict, load_pretrained, load_release_state_dict
from tests.models.checkpoints import (
    EVEN,
    SWIN,
    microsoft_names,
    narrow_release,
    network,
    swin,
    timm_names,
    unchanged,
    values,
)
from tests.models.golden import MANIFEST


def test_each_kind_is_recognised(
    release: dict[str, Tensor], imagenet: dict[str, Tensor], torchvision_swin: dict[str, Tensor]
) -> None:
    model = network()
    assert load_pretrained(model, {"state_dict": release, "epoch": 3}).source == "the release's checkpoint"
    assert load_pretrained(network(), imagenet).source == "the ImageNet ResNet"
    assert load_imagenet_state_dict(network(), {"state_dict": imagenet, "epoch": 90}).dropped == [
        "fc.weight",
        "fc.bias",
    ]
    ours = load_pretrained(network(), {"model": model.state_dict(), "epoch": 3, "classes": ["a"]})
    assert (ours.source, ours.new, ours.dropped) == ("a checkpoint of this project", [], [])
    wide = swin(patch_norm=True)
    assert load_pretrained(wide, torchvision_swin).source == "torchvision's ImageNet Swin"
    assert load_pretrained(wide, {"model": microsoft_names(torchvision_swin)}).source == "Microsoft's ImageNet Swin"
    assert load_pretrained(wide, timm_names(torchvision_swin)).source == "timm's ImageNet Swin"
    assert load_pretrained(swin(offset="regular"), narrow_release()).source == "the release's checkpoint"


def test_what_is_not_known_is_refused(imagenet: dict[str, Tensor], torchvision_swin: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"of no network that is known .*their names are blocks\.0\.weight$"):
        load_pretrained(network(), {"blocks.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="their names are none"):
        load_pretrained(network(), {"epoch": 3})
    with pytest.raises(ValueError, match="the ImageNet ResNet does not fit this model; missing: patch_embed"):
        load_pretrained(swin(), imagenet)
    with pytest.raises(ValueError, match=r"^ImageNet weights were expected, this is a checkpoint of this project$"):
        load_imagenet_state_dict(network(), network().state_dict())
    for state, source in (
        ({"conv1.weight": torch.zeros(4, 3, 7, 7)}, "the ImageNet ResNet"),
        (network().state_dict(), "a checkpoint of this project"),
    ):
        with pytest.raises(ValueError, match=f"^a checkpoint of the release was expected, this is {source}$"):
            load_release_state_dict(network(), state)


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


def test_names_of_the_release_are_microsofts() -> None:
    """The test's own renaming, against the authors' list."""
    with torch.device("meta"):
        ours = microsoft_names(torchvision.models.swin_s().state_dict())
    theirs = {n: shape for n, shape in MANIFEST[SWIN].items() if not n.startswith(("fc.", "patch_embed"))}
    for name, value in ours.items():
        if name.startswith(("layers.", "norm.")):
            assert theirs[name] == value.shape, name
    rest = {name.split(".", 4)[-1] for name in set(theirs) - set(ours)}
    assert rest == {"def_cor.weight", "conv.weight", "tda_norm.weight", "tda_norm.bias", "attn_mask"}


@pytest.mark.parametrize("names", [dict, microsoft_names, timm_names], ids=lambda rule: rule.__name__)
def test_swin_from_anywhere(torchvision_swin: dict[str, Tensor], names: Any) -> None:
    model = swin(patch_norm=True)
    before = values(model)
    report = load_imagenet_state_dict(model, names(torchvision_swin))
    after = model.state_dict()
    stem = after["patch_embed.proj.weight"].unflatten(1, (3, 4))
    assert torch.equal(stem[:, :, 2], torchvision_swin["features.0.0.weight"])
    assert not stem[:, :, [0, 1, 3]].any()
    for ours, theirs in (
        ("patch_embed.norm.bias", "features.0.2.bias"),
        ("layers.0.blocks.1.attn.relative_position_bias_table", "features.1.1.attn.relative_position_bias_table"),
        ("layers.2.blocks.17.mlp.0.weight", "features.5.17.mlp.0.weight"),
        ("layers.2.blocks.17.mlp.3.bias", "features.5.17.mlp.3.bias"),
        ("layers.2.downsample.reduction.weight", "features.6.reduction.weight"),
        ("norm.weight", "norm.weight"),
    ):
        assert torch.equal(after[ours], torchvision_swin[theirs]), ours
    new = [name for name in after if ".temporal." in name or ".norm_temporal." in name or name.startswith("fc.")]
    assert sorted(report.new) == sorted(new)
    assert all(torch.equal(after[name], before[name]) for name in new)
    assert report.inflated == ["patch_embed.proj.weight"]
    assert {name for name in report.dropped if name.startswith("head.")} == {
        name for name in names(torchvision_swin) if name.startswith("head.")
    }


def test_unused_parameters_of_the_releases_swin_are_dropped_by_name() -> None:
    state = narrow_release()
    unused = [n for n in state if n.endswith(".conv.weight") and (n.split(".")[3] in EVEN or n.startswith("layers.3."))]
    unused += [n for n in state if ".tda_norm." in n and n.split(".")[3] not in EVEN and not n.startswith("layers.3.")]
    assert len(unused) == 1 + 1 + 9 + 2 + 2 * (1 + 1 + 9)
    whole, rest = swin(offset="regular"), swin(offset="regular")
    report = load_release_state_dict(whole, {f"module.{name}": value for name, value in state.items()})
    assert set(unused) <= set(report.dropped)
    load_release_state_dict(rest, {name: value for name, value in state.items() if name not in unused})
    assert unchanged(rest, values(whole))
    assert all(value.isfinite().all() for value in whole.state_dict().values())
