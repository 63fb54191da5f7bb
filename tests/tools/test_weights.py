"""The mean of checkpoints: of which files, of which of their weights, what is refused; weights under other names."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from engine.checkpoint import read_checkpoint
from models import build_model
from tests.engine.test_checkpoint_average import write_checkpoint
from tools import weights


def average(arguments: list[str]) -> int:
    return weights.main(["average", *arguments])


def convert(arguments: list[str]) -> int:
    return weights.main(["convert", *arguments])


def test_the_mean_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = write_checkpoint(tmp_path / "one.pth", 1), write_checkpoint(tmp_path / "two.pth", 4)
    assert average([str(one), str(two), "--out", str(tmp_path / "mean.pth")]) == 0
    assert "mean of 2 checkpoints, one.pth, two.pth" in capsys.readouterr().out
    mean = read_checkpoint(tmp_path / "mean.pth")
    assert torch.equal(mean["model"]["fc.weight"], torch.full((2, 3), 2.5))
    assert mean["model"]["norm.num_batches_tracked"] == 4
    assert (mean["epoch"], mean["config"], mean["classes"]) == (4, {"seed": 1}, ["a"])
    assert "optimizer" not in mean


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = write_checkpoint(tmp_path / "one.pth", 1), write_checkpoint(tmp_path / "other.pth", 1, classes=5)
    for arguments, message in (
        ([one, other], "other.pth is of another network than"),
        ([tmp_path / "nowhere.pth"], "nowhere.pth does not exist"),
        ([tmp_path, "--last", "3"], "has 0 checkpoints epoch_N.pth, 3 are wanted"),
    ):
        assert average([*map(str, arguments), "--out", str(tmp_path / "mean.pth")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "mean.pth").exists()


# ---- Other names -----------------------------------------------------------------------------------------------------


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, release, back = (str(tmp_path / name) for name in ("ours.pth", "release.pth", "back.pth"))
    state = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, width=4).state_dict()
    torch.save({"model": state, "epoch": 3}, ours)
    assert convert([ours, release, "--to", "release", "--clip_length", "8"]) == 0
    assert convert([release, back, "--to", "ours"]) == 0
    assert same(torch.load(back, weights_only=True), dict(state))
    assert convert([ours, back, "--to", "torchvision"]) == 2
    assert convert([str(tmp_path / "nowhere"), back, "--to", "ours"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith(f"error: {ours}: conv1.weight looks at more than one frame")
    assert errors[1] == f"error: checkpoint {tmp_path}/nowhere does not exist"


def test_half_a_network_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, width=4).state_dict()
    file, name = tmp_path / "ours.pth", "layer2.3.conv2.weight"
    for broken in ({key: value for key, value in state.items() if key != name}, state | {name: torch.tensor(1.0)}):
        torch.save(broken, file)
        assert convert([str(file), str(tmp_path / "out.pth"), "--to", "release", "--clip_length", "8"]) == 2
        assert f"error: {file}: a tensor is missing or has a wrong shape: " in capsys.readouterr().err


def test_attention_that_the_release_has_not_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The weights do not tell, the settings of a checkpoint do."""
    state = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, width=4).state_dict()
    file = tmp_path / "ours.pth"
    for settings, message in (
        ({"cosine": True}, "the release has no attention by cosines"),
        ({"offset": "difference"}, "the release predicts offsets from motion saliency, this network from difference"),
    ):
        torch.save({"model": state, "config": {"SIFA": settings}}, file)
        assert convert([str(file), str(tmp_path / "out.pth"), "--to", "release", "--clip_length", "8"]) == 2
        assert f"error: {file}: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["ours", "release"])
def test_an_image_network_is_not_made_half_of_ours(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing could load the result; as it is, everything can."""
    image, out = tmp_path / "resnet50.pth", tmp_path / "out.pth"
    torch.save(torchvision.models.resnet50().state_dict(), image)
    assert convert([str(image), str(out), "--to", target]) == 2
    assert capsys.readouterr().err == (
        f"error: {image}: the ImageNet ResNet lacks what looks over time, so that no network could load it as "
        f"--to {target}; load it directly, as network.pretrained_model\n"
    )
    assert not out.exists()
    assert convert([str(image), str(out), "--to", "torchvision"]) == 0
    assert same(torch.load(out, weights_only=True), torch.load(image, weights_only=True))


@pytest.mark.parametrize("target", ["ours", "release", "torchvision"])
def test_an_image_network_without_a_counterpart_is_refused(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, out = tmp_path / "r18.pth", tmp_path / "out.pth"
    torch.save(torchvision.models.resnet18().state_dict(), image)
    assert convert([str(image), str(out), "--to", target]) == 2
    assert capsys.readouterr().err == (
        f"error: {image}: the ImageNet ResNet is of a size or kind that no network here has; those of ResNet-50 "
        "and -101, Swin-S, -B and -L are known\n"
    )
    assert not out.exists()
