"""Caffe's ResNet of 2015 as a source of first weights: a file written field by field, and one block by hand."""

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d

from datasets.normalisation import MEAN, STD, normalise
from engine.checkpoint import CheckpointError
from models import Network, build_model, load_imagenet_state_dict, load_pretrained, read_caffemodel
from models.sifa_resnet import ClipBottleneck
from models.weight_formats import DEVIATIONS
from sifa.weight_files import convert_weights, read_weight_file

WIDTH = 2
DEPTHS = {"c2d_sifa_resnet50": (3, 4, 6, 3), "c2d_sifa_resnet101": (3, 4, 23, 3)}
MEANS_BGR = (103.53, 116.28, 123.675)


def network(net_name: str = "c2d_sifa_resnet50", **options: Any) -> Network:
    return build_model(
        net_name, num_classes=5, clip_length=8, **{"width": WIDTH, "caffe_style": True, "temporal": "none", **options}
    )


def blocks_of(net_name: str) -> list[tuple[str, int, int, bool]]:
    """Caffe's name of each block, channels of its input and inside, and whether its shortcut has a convolution."""
    found, channels = [], WIDTH
    for stage, depth in enumerate(DEPTHS[net_name]):
        planes = WIDTH * 2**stage
        for i in range(depth):
            # ResNet-101 counts res3a, res3b1, res3b2 ... where there are many, ResNet-50 letters.
            counted = net_name.endswith("101") and stage in (1, 2) and i > 0
            found.append((f"{stage + 2}{f'b{i}' if counted else 'abcdef'[i]}", channels, planes, i == 0))
            channels = planes * 4
    return found


def layers(net_name: str) -> dict[str, tuple[str, list[Tensor]]]:
    """Layer -> type and blobs, with the names and shapes of the public files, at a fraction of the channels."""
    generator = torch.Generator().manual_seed(0)
    made: dict[str, tuple[str, list[Tensor]]] = {}

    def convolution(name: str, bn: str, shape: tuple[int, int, int]) -> None:
        out, channels, size = shape
        made[name] = "Convolution", [torch.randn(out, channels, size, size, generator=generator) * 0.2]
        factor = 4.0  # mean and variance are sums
        moments = torch.randn(out, generator=generator) * factor, (torch.rand(out, generator=generator) + 0.5) * factor
        made[f"bn{bn}"] = "BatchNorm", [*moments, torch.tensor([factor])]
        affine = [torch.rand(out, generator=generator) + 0.5, torch.randn(out, generator=generator)]
        made[f"scale{bn}"] = "Scale", affine

    convolution("conv1", "_conv1", (WIDTH, 3, 7))
    for block, channels, planes, has_shortcut in blocks_of(net_name):
        if has_shortcut:
            convolution(f"res{block}_branch1", f"{block}_branch1", (4 * planes, channels, 1))
        convolution(f"res{block}_branch2a", f"{block}_branch2a", (planes, channels, 1))
        convolution(f"res{block}_branch2b", f"{block}_branch2b", (planes, planes, 3))
        convolution(f"res{block}_branch2c", f"{block}_branch2c", (4 * planes, planes, 1))
    classifier = torch.zeros(7, 32 * WIDTH), torch.zeros(7)
    made["fc1000"] = "InnerProduct", list(classifier)
    return made


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, contents: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(contents)) + contents


def blob(tensor: Tensor, *, old: bool) -> bytes:
    data = struct.pack(f"<{tensor.numel()}f", *tensor.flatten().tolist())
    if old:  # num, channels, height and width; a bias is 1 x 1 x 1 x C
        sides = [1] * (4 - tensor.dim()) + list(tensor.shape)
        return b"".join(varint(i << 3) + varint(side) for i, side in enumerate(sides, start=1)) + field(5, data)
    return field(7, field(1, b"".join(map(varint, tensor.shape)))) + field(5, data)


def write(path: Path, made: dict[str, tuple[str, list[Tensor]]], *, old: bool = False) -> Path:
    message = field(1, b"ResNet")
    for name, (kind, blobs) in made.items():
        parts = [field(1, name.encode()), field(2, kind.encode()), *(field(7, blob(one, old=old)) for one in blobs)]
        message += field(100, b"".join(parts))
    message += field(100, field(1, b"relu") + field(2, b"ReLU"))
    path.write_bytes(message)
    return path


@pytest.mark.parametrize("net_name", DEPTHS)
def test_every_tensor_of_a_file_arrives(net_name: str, tmp_path: Path) -> None:
    made = layers(net_name)
    contents = read_weight_file(write(tmp_path / "ResNet.caffemodel", made))
    model = network(net_name)
    report = load_imagenet_state_dict(model, contents)
    assert report.source == "Caffe's ImageNet ResNet"
    assert "BGR values in 0..255" in report.table()
    assert report.dropped == ["fc1000.weight", "fc1000.bias"]
    assert all(name.startswith("fc") or ".context." in name for name in report.new)
    state = model.state_dict()
    last = {"c2d_sifa_resnet50": "res4f_branch2b", "c2d_sifa_resnet101": "res4b22_branch2b"}[net_name]
    assert torch.equal(state[f"layer3.{DEPTHS[net_name][2] - 1}.conv2.weight"], made[last][1][0])
    sums, _, factor = made["bn2a_branch1"][1]
    torch.testing.assert_close(state["layer1.0.downsample.1.running_mean"], sums / factor)
    assert torch.equal(state["layer1.0.downsample.1.weight"], made["scale2a_branch1"][1][0])
    assert torch.equal(state["layer4_dual.2.conv3.weight"], made["res5c_branch2c"][1][0])


def caffe(made: dict[str, tuple[str, list[Tensor]]], x: Tensor, name: str, bn: str, **options: int) -> Tensor:
    """Convolution, BatchNorm and Scale of a layer, as Caffe computes them."""
    mean, variance, factor = made[f"bn{bn}"][1]
    weight, bias = made[f"scale{bn}"][1]
    x = conv2d(x, made[name][1][0], **options)  # type: ignore[call-overload]
    return batch_norm(x, mean / factor, variance / factor, weight, bias, eps=1e-5)


def test_stem_and_a_block_with_stride_by_hand(tmp_path: Path) -> None:
    """From a picture in bytes on: Caffe's net gets BGR minus the means, ours normalised RGB; the border too."""
    made = layers("c2d_sifa_resnet50")
    model = network(stem_frames=1).eval()
    load_pretrained(model, read_caffemodel(write(tmp_path / "a.caffemodel", made)))
    picture = torch.randint(256, (2, 1, 20, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    bgr = picture[:, 0].float().permute(0, 3, 1, 2).flip(1) - torch.tensor(MEANS_BGR)[:, None, None]
    expected = caffe(made, bgr, "conv1", "_conv1", stride=2, padding=3)
    ours = model.get_submodule("bn1")(model.get_submodule("conv1")(normalise(picture)[:, :, 0]))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)

    x = torch.randn(2, 4 * WIDTH, 7, 9)
    inner = caffe(made, x, "res3a_branch2a", "3a_branch2a", stride=2).relu()  # the stride is in the first 1x1
    inner = caffe(made, inner, "res3a_branch2b", "3a_branch2b", padding=1).relu()
    branch = caffe(made, inner, "res3a_branch2c", "3a_branch2c")
    shortcut = caffe(made, x, "res3a_branch1", "3a_branch1", stride=2)
    block = model.get_submodule("layer2.0")
    assert isinstance(block, ClipBottleneck)
    block.context = None
    torch.testing.assert_close(block(x[:, None])[:, 0], (branch + shortcut).relu(), rtol=1e-4, atol=1e-4)


def test_names_of_torchvision_are_folded_as_well() -> None:
    """As mmdet's and other conversions of the same weights come; their names do not tell the kind."""
    state = network(stages=[], dual_head=False, stem_frames=1).state_dict()  # the names of an image network
    model = network(stem_frames=1)
    load_imagenet_state_dict(model, state)
    scale = 255 * torch.tensor(STD)[:, None, None]
    assert torch.equal(model.state_dict()["conv1.weight"], state["conv1.weight"].flip(1) * scale)
    plain = network(stem_frames=1, caffe_style=False)
    load_imagenet_state_dict(plain, state)
    assert torch.equal(plain.state_dict()["conv1.weight"], state["conv1.weight"])


def test_the_normalisation_is_the_one_of_the_clips() -> None:
    assert DEVIATIONS == STD
    assert [255 * mean for mean in reversed(MEAN)] == pytest.approx(MEANS_BGR)


def test_a_network_with_another_stride_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.caffemodel", layers("c2d_sifa_resnet50"))
    with pytest.raises(ValueError, match="stride in the first 1x1 convolution: set caffe_style=true"):
        load_imagenet_state_dict(network(caffe_style=False), read_caffemodel(file))
    with pytest.raises(CheckpointError, match="stride in the first 1x1 convolution, which no other network here has"):
        convert_weights(file, "torchvision", clip_length=8, sifa_kernel=3)


def test_caffe_style_moves_the_stride_and_nothing_else() -> None:
    ours, plain = network(), network(caffe_style=False)
    assert list(ours.state_dict()) == list(plain.state_dict())
    for model, strides in ((ours, [(2, 2), (1, 1)]), (plain, [(1, 1), (2, 2)])):
        block = model.get_submodule("layer3.0")
        assert [block.get_submodule(name).stride for name in ("conv1", "conv2")] == strides


def test_old_shapes_and_damaged_files(tmp_path: Path) -> None:
    made = {"conv1": layers("c2d_sifa_resnet50")["conv1"], "bn_conv1": layers("c2d_sifa_resnet50")["bn_conv1"]}
    new = read_caffemodel(write(tmp_path / "new.caffemodel", made))
    old = read_caffemodel(write(tmp_path / "old.caffemodel", made, old=True))
    assert new.keys() == old.keys() == {"conv1.weight", "bn_conv1.running_mean", "bn_conv1.running_var"}
    assert all(torch.equal(new[name], old[name]) for name in new)
    contents = (tmp_path / "new.caffemodel").read_bytes()
    damaged = tmp_path / "damaged.caffemodel"
    short = field(100, field(1, b"a") + field(2, b"Scale") + field(7, field(7, field(1, b"\x05")) + field(5, bytes(8))))
    for data, message in (
        (contents[:-3], "damaged"),
        (contents[: len(contents) // 2], "damaged"),
        (b"\xff" * 20, "more than 64 bits"),
        (b"", "holds no weights"),
        (short, r"a blob of shape \(5,\) has 2 values"),
        (field(2, b""), "of the format before 2015"),
        (field(100, varint(1 << 3) + varint(5)), "damaged"),
    ):
        damaged.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            read_caffemodel(damaged)
