"""Weights from elsewhere: what is taken, where it goes, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from engine.checkpoint import CheckpointError
from engine.schema import Config
from models import Network, build_model, load_imagenet_state_dict, load_pretrained, load_release_state_dict
from models.sifa_resnet import SIFANet
from sifa.build import build_network, load_initial_weights
from tests.models.golden import MANIFEST, MODELS, release_entry, release_state_dict

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
        (
            {"fc.bias": torch.zeros(10, dtype=torch.int32)},
            r"mistyped: fc\.bias of torch\.int32 instead of torch\.float32$",
        ),
        ({"fc.bias": torch.zeros(10, dtype=torch.complex64)}, r"mistyped: fc\.bias of torch\.complex64 instead"),
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


# ---- SIFA-Transformer, narrow: the names are what is tested ---------------------------------------------------------

SWIN = "c2d_sifa_swin_vit_s_p4_w7"


def swin(**options: Any) -> Network:
    return build_model(SWIN, num_classes=5, clip_length=8, **{"width": 6, **options})


@pytest.fixture(scope="module")
def torchvision_swin() -> dict[str, Tensor]:
    network = torchvision.models.SwinTransformer([4, 4], 6, [2, 2, 18, 2], [3, 6, 12, 24], [7, 7])
    return {name: torch.randn_like(v) if v.is_floating_point() else v for name, v in network.state_dict().items()}


def microsoft_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision state dict under Microsoft's names, with the constants of its checkpoints."""
    renamed = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "features":
            stage, kind = divmod(int(parts[1]) - 1, 2)
            if parts[1] == "0":
                parts[:3] = ["patch_embed", "proj" if parts[2] == "0" else "norm"]
            elif kind == 0:
                parts[:2] = ["layers", str(stage), "blocks"]
            else:
                parts[:2] = ["layers", str(stage), "downsample"]
        name = ".".join(parts).replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
        renamed[name] = value.view(49, 49) if name.endswith("position_index") else value
    return renamed


def timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Microsoft's, but each stage begins with the merging of patches, and the classifier is head.fc."""
    renamed = {}
    for name, value in microsoft_names(state).items():
        parts = name.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) + 1)
        renamed[".".join(parts).replace("head.", "head.fc.")] = value
    return renamed


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


def test_swin_without_the_norm_of_the_embedding_takes_no_imagenet_weights(torchvision_swin: dict[str, Tensor]) -> None:
    with pytest.raises(
        ValueError, match=r"unexpected: patch_embed\.norm\.weight, .*; ImageNet's Swin has a norm .*patch_norm"
    ):
        load_imagenet_state_dict(swin(), torchvision_swin)


def test_position_tables_of_another_window_are_interpolated(torchvision_swin: dict[str, Tensor]) -> None:
    """Window 12 as in Microsoft's 384-pixel models: displacements of -11..11 become -6..6, and 0 stays 0."""
    side = torch.arange(-11.0, 12.0)
    heads = [side[:, None].expand(23, 23), side[None, :].expand(23, 23) ** 2, torch.full((23, 23), 5.0)]
    table = torch.stack(heads, dim=-1).flatten(0, 1)
    state = {
        name: table.repeat(1, value.shape[1] // 3) if name.endswith("bias_table") else value
        for name, value in torchvision_swin.items()
    }
    model = swin(patch_norm=True)
    report = load_imagenet_state_dict(model, state)
    assert len(report.interpolated) == 24
    down, across, level = (
        model.state_dict()["layers.1.blocks.0.attn.relative_position_bias_table"].view(13, 13, 6)[..., :3].unbind(-1)
    )
    torch.testing.assert_close(down, -down.flip(0))
    assert (down.diff(dim=0) > 1).all()
    torch.testing.assert_close(down, down[:, :1].expand(13, 13))
    torch.testing.assert_close(across, across.flip(1))
    assert torch.equal(across.argmin(dim=1), torch.full((13,), 6))
    torch.testing.assert_close(level, torch.full((13, 13), 5.0))


def narrow_release() -> dict[str, Tensor]:
    """A checkpoint of the release's Swin with a sixteenth of the channels."""

    def narrow(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if name.endswith(("relative_position_index", "attn_mask", "bias_table", "def_cor.weight")):
            return shape
        sizes = (side // 16 if side % 96 == 0 else side for side in shape)
        return (5, *list(sizes)[1:]) if name.startswith("fc.") else tuple(sizes)

    return {name: release_entry(name, narrow(name, shape), 7) for name, shape in MANIFEST[SWIN].items()}


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


EVEN = {str(i) for i in range(0, 18, 2)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"missing: layers\.0\.blocks\.0\.temporal\.offset\.weight, .*; networks with `offset: regular` have no"),
        ({"offset": "regular", "stages": ["res4"]}, r"unexpected: layers\.0\.blocks\.0\.norm_temporal\.weight"),
        ({"offset": "regular", "temporal": "none"}, r"unexpected: layers\.0\.blocks\.0\.norm_temporal\.weight"),
        ({"offset": "regular", "patch_norm": True}, r"missing: patch_embed\.norm\.weight, .*see patch_norm"),
    ],
    ids=str,
)
def test_a_used_parameter_of_the_releases_swin_is_not_dropped(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_release_state_dict(swin(**options), narrow_release())


# ---- By content -----------------------------------------------------------------------------------------------------


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


def test_a_checkpoint_of_ours_for_other_classes_and_clips() -> None:
    source = build_model("c2d_sifa_resnet50", num_classes=9, clip_length=16, width=4)
    target = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, width=4)
    before = values(target)
    report = load_pretrained(target, {"model": source.state_dict()})
    classifiers = {"fc.weight", "fc.bias", "fc_dual.weight", "fc_dual.bias"}
    assert set(report.dropped) == set(report.new) == classifiers
    for name, value in target.state_dict().items():
        assert torch.equal(value, before[name] if name in classifiers else source.state_dict()[name]), name


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        (["a", "b", "c"], ["x", "y", "z"], ", without its classifier: its classes are a, b, c"),
        (["a", "b", "c"], ["b", "a", "c"], ", without its classifier: its classes are a, b, c"),
        ([], ["x", "y", "z"], ", without its classifier: its classes have no names"),
        (["a", "b", "c"], ["a", "b", "c"], ""),
        (["a", "b", "c"], [], ""),
        ([], [], ""),
        (None, ["x", "y", "z"], ""),  # weights alone: nothing is said of their classes
    ],
    ids=str,
)
def test_as_many_classes_are_not_the_same_classes(theirs: list[str] | None, ours: list[str], told: str) -> None:
    source = build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=4)
    target = build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=4)
    before = values(target)
    contents = {"model": source.state_dict()} | ({} if theirs is None else {"classes": theirs})
    report = load_pretrained(target, contents, classes=ours)
    classifiers = {"fc.weight", "fc.bias", "fc_dual.weight", "fc_dual.bias"}
    assert set(report.dropped) == set(report.new) == (classifiers if told else set())
    assert report.table().splitlines()[0] == f"weights of a checkpoint of this project{told}"
    for name, value in target.state_dict().items():
        own = told and name in classifiers
        assert torch.equal(value, before[name] if own else source.state_dict()[name]), name


def test_a_checkpoint_of_the_release_for_other_classes(release: dict[str, Tensor]) -> None:
    model = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, sifa_kernel=CASE["sifa_kernel"])
    with pytest.raises(ValueError, match=r"misshapen: fc\.weight"):
        load_release_state_dict(model, release)
    assert set(load_pretrained(model, release).new) == {"fc.weight", "fc.bias", "fc_dual.weight", "fc_dual.bias"}


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


def test_the_report_counts_every_tensor(imagenet: dict[str, Tensor]) -> None:
    model = network()
    table = load_imagenet_state_dict(model, imagenet).table()
    rows = {line.split()[0]: int(line.split()[1]) for line in table.splitlines()[1:]}
    assert rows["dropped"] == 2
    assert rows["inflated"] == 1
    assert rows["matched"] + rows["inflated"] + rows["dropped"] == len(imagenet)
    assert rows["copied"] == sum(name.startswith("layer4.") for name in imagenet)
    assert rows["matched"] + rows["inflated"] + rows["copied"] + rows["new"] == len(model.state_dict())


def small_config(file: Path, **dataset: Any) -> Config:
    return Config.model_validate(
        {
            "dataset": {"num_classes": 5, "clip_length": 8, **dataset},
            "network": {"width": 4, "pretrained_model": str(file)},
        }
    )


def test_the_script_takes_either_kind_of_file_by_content(tmp_path: Path) -> None:
    source = build_model("c2d_sifa_resnet50", num_classes=9, clip_length=8, width=4)
    weights = {name: value for name, value in source.state_dict().items() if value.is_floating_point()}
    torch.save({"model": weights, "epoch": 4}, tmp_path / "a.bin")
    header, data = {}, b""
    for name, value in weights.items():
        raw = value.contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (tmp_path / "b.bin").write_bytes(len(text).to_bytes(8, "little") + text + data)
    for file in (tmp_path / "a.bin", tmp_path / "b.bin"):
        config = small_config(file)
        model = build_network(config)
        (report,) = load_initial_weights(model, config, None)
        assert f"{file}: weights of a checkpoint of this project" in report
        assert re.search(r"dropped +4 +fc\.weight", report)
        assert torch.equal(
            model.state_dict()["layer3.1.temporal.offset.weight"], weights["layer3.1.temporal.offset.weight"]
        )
        assert torch.equal(model.state_dict()["conv1.weight"], weights["conv1.weight"])


def test_the_script_tells_classes_apart_by_their_names(tmp_path: Path) -> None:
    source = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, width=4).state_dict()
    torch.save({"model": source, "classes": list("abcde")}, tmp_path / "last.pth")
    classes_file = tmp_path / "classes.txt"
    for names, kept in (("", True), ("a b c d e", True), ("v w x y z", False)):
        classes_file.write_text(names.replace(" ", "\n"))
        config = small_config(tmp_path / "last.pth", classes_file=str(classes_file) if names else "")
        model = build_network(config)
        load_initial_weights(model, config, None)
        assert torch.equal(model.state_dict()["fc.weight"], source["fc.weight"]) == kept, names


def test_the_script_names_the_file_that_does_not_fit(tmp_path: Path) -> None:
    torch.save({"model": {"conv1.weight": torch.zeros(4, 3, 7, 7)}}, tmp_path / "resnet.pth")
    config = small_config(tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"resnet\.pth: the ImageNet ResNet does not fit .*; missing: bn1"):
        load_initial_weights(build_network(config), config, None)
