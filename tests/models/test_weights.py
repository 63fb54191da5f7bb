"""Loading of weights: what is taken, what is adapted, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.checkpoint import CheckpointError, save_checkpoint
from engine.schema import Config
from models import build_model, load_imagenet_state_dict, load_pretrained, load_release_state_dict
from models.weight_conversion import to_release, to_torchvision
from sifa.build import build_network, load_initial_weights
from tests.models.checkpoints import CASE, narrow_release, network, swin, unchanged, values


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


def test_a_stem_of_one_frame_takes_the_kernel_as_it_is(imagenet: dict[str, Tensor]) -> None:
    model = build_model(CASE["net_name"], num_classes=5, clip_length=8, sifa_kernel=CASE["sifa_kernel"], stem_frames=1)
    report = load_imagenet_state_dict(model, imagenet)
    assert not report.inflated
    assert torch.equal(model.state_dict()["conv1.weight"], imagenet["conv1.weight"])
    ours = model.state_dict()  # three channels, as an image network's
    assert load_pretrained(model, ours).source == "a checkpoint of this project"
    assert torch.equal(to_torchvision(ours)[0]["conv1.weight"], imagenet["conv1.weight"])
    with pytest.raises(ValueError, match=r"the release has no place for conv1\.weight, a stem of one frame"):
        to_release(ours, clip_length=8)


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


# ---- Another variant of the network ---------------------------------------------------------------------------------

NARROW = {"net_name": CASE["net_name"], "width": 4}


def variant(network: dict[str, Any] | None = None, **section: Any) -> Config:
    values = {"num_classes": 5, "clip_length": 8}
    return Config.model_validate({"dataset": values, "network": {**NARROW, **(network or {})}, "SIFA": section})


@pytest.fixture(scope="module")
def sifa_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = variant(stages=["res4"])
    file = tmp_path_factory.mktemp("variant") / "last.pth"
    save_checkpoint(file, {"model": build_network(config).state_dict(), "config": config.model_dump(), "epoch": 1})
    return file


@pytest.mark.parametrize(
    ("config", "dropped", "new"),
    [
        (variant(stages=["res4"], temporal="shift"), {"temporal.offset.weight"}, set()),
        (variant(stages=["res4"], sifa_kernel=[5] * 4), {"temporal.offset.weight"}, {"temporal.offset.weight"}),
        (variant(stages=["res4"], temporal="conv"), {"temporal.offset.weight"}, {"temporal.conv.weight"}),
        (variant({"dual_head": False}, stages=["res4"]), {"conv1.weight", "fc_dual.weight"}, set()),
        (variant(stages=[]), {"temporal.offset.weight", "context.fc1.weight"}, set()),
        (variant(stages=["res3", "res4"]), set(), {"temporal.offset.weight", "context.fc1.weight"}),
    ],
    ids=["shift", "kernel", "conv", "one head", "2D", "more stages"],
)
def test_training_starts_from_another_variant(
    config: Config, dropped: set[str], new: set[str], sifa_checkpoint: Path
) -> None:
    """By --checkpoint, and as a file of weights: the same table, what both have is loaded."""
    state = torch.load(sifa_checkpoint, weights_only=True)["model"]
    model = build_network(config)
    (table,) = load_initial_weights(model, config, sifa_checkpoint)
    report = load_pretrained(build_network(config), state)
    assert table == f"{sifa_checkpoint} is of another variant of the network: {report.table()}"
    for kind, wanted in ((report.dropped, dropped), (report.new, new)):
        assert bool(kind) == bool(wanted)
        for name in wanted:
            assert any(one.endswith(name) for one in kind), name
    after = model.state_dict()
    assert all(torch.equal(after[name], state[name]) for name in report.matched)
    assert {"conv1.weight", "layer4.0.conv1.weight", "fc.weight"} <= set(report.matched)
    assert set(after) == {*report.matched, *report.new}


def test_a_second_head_starts_as_a_copy_of_the_first(tmp_path: Path) -> None:
    model = build_network(variant({"dual_head": False}))
    save_checkpoint(tmp_path / "one.pth", {"model": model.state_dict()})
    both = build_network(variant())
    (table,) = load_initial_weights(both, variant(), tmp_path / "one.pth")
    assert re.search(r"copied +\d+  layer4_dual.*\n  new +\d+  fc_dual", table)
    assert torch.equal(both.state_dict()["layer4_dual.0.conv1.weight"], model.state_dict()["layer4.0.conv1.weight"])


def test_another_width_or_depth_is_no_variant(sifa_checkpoint: Path) -> None:
    for change in ({"width": 8}, {"net_name": "c2d_sifa_resnet101"}):
        config = variant(change, stages=["res4"])
        with pytest.raises(CheckpointError, match="does not fit this model"):
            load_initial_weights(build_network(config), config, sifa_checkpoint)
