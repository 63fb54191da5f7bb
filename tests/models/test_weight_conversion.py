"""Weights there and back again."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from models import Network, build_model, load_imagenet_state_dict, load_release_state_dict
from models.weight_conversion import is_known_image_network, to_project, to_release, to_torchvision
from tests.models.golden import MANIFEST, MODELS, release_state_dict

RESNET = MODELS["sifa_net_r50_k5"]
SWIN = "c2d_sifa_swin_vit_s_p4_w7"


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def swin(**options: Any) -> Network:
    model = build_model(SWIN, num_classes=5, clip_length=8, **{"width": 6, "offset": "regular", **options})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("net_name", ["c2d_sifa_resnet50", SWIN])
def test_the_project_to_the_release_and_back(net_name: str) -> None:
    model = swin() if net_name == SWIN else build_model(net_name, num_classes=5, clip_length=8, width=4)
    ours = model.state_dict()
    release = to_release(ours, clip_length=8)
    assert release.keys() == MANIFEST[net_name].keys()
    back = to_project(release)
    assert same(back, {name: value for name, value in ours.items() if not name.endswith("position_index")})
    load_release_state_dict(model, release)


def test_the_release_to_project_and_back() -> None:
    release = {f"module.{name}": value for name, value in release_state_dict(RESNET).items()}
    back = to_release(to_project(release), clip_length=8)
    assert back.keys() == MANIFEST[RESNET["net_name"]].keys()
    for name, value in back.items():
        if "def_cor" in name:  # a constant, 1 / C
            assert value.shape == MANIFEST[RESNET["net_name"]][name]
            assert torch.equal(value, torch.full_like(value, 1 / value.shape[0]))
        elif "num_batches_tracked" not in name:
            assert torch.equal(value, release[f"module.{name}"]), name


def test_constants_of_the_releases_swin() -> None:
    """Shapes as the authors' checkpoint has them; masks as torchvision makes them while it runs."""
    with torch.device("meta"):
        model = build_model(SWIN, num_classes=17, clip_length=8, offset="regular")
    shapes = {name: value.shape for name, value in to_release(_on_cpu(model), clip_length=8).items()}
    assert shapes == {name: torch.Size(shape) for name, shape in MANIFEST[SWIN].items()}
    mask = to_release(swin().state_dict(), clip_length=8)["layers.2.blocks.1.attn_mask"]
    rows = torch.arange(14).roll(-3).view(2, 7)  # where the tokens of each row of windows come from
    for window, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        apart = [(rows[index] - rows[index].roll(1)).abs().max() > 7 for index in (i, j)]
        assert mask[window].any() == any(apart)
        far = (rows[i][:, None, None, None] - rows[i][None, None, :, None]).abs() > 7
        far = far | ((rows[j][None, :, None, None] - rows[j][None, None, None, :]).abs() > 7)
        assert torch.equal(mask[window] == -100, far.expand(7, 7, 7, 7).reshape(49, 49))


def _on_cpu(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: torch.empty(1, dtype=v.dtype).expand(v.shape) for name, v in model.state_dict().items()}


def test_torchvisions_resnet_there_and_back() -> None:
    image = torchvision.models.resnet50().state_dict()
    ours = to_project(image)
    assert ours["conv1.weight"].shape == (64, 12, 7, 7)
    back, dropped = to_torchvision(ours)
    assert same(back, image)
    assert not dropped


def test_torchvisions_swin_there_and_back() -> None:
    image = torchvision.models.SwinTransformer([4, 4], 6, [2, 2, 18, 2], [3, 6, 12, 24], [7, 7]).state_dict()
    back, _ = to_torchvision(to_project(image))
    assert same(back, {name: value for name, value in image.items() if not name.endswith("position_index")})


def test_an_image_network_drops_what_looks_over_time() -> None:
    image = torchvision.models.resnet50().state_dict()
    model = build_model("c2d_sifa_resnet50", num_classes=1000, clip_length=8)
    load_imagenet_state_dict(model, image)
    back, dropped = to_torchvision(model.state_dict())
    assert back.keys() == image.keys()
    assert all(torch.equal(back[name], image[name]) for name in back if not name.startswith("fc."))
    kept = set(model.state_dict()) - set(dropped)
    assert kept == set(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": "motion_saliency"}, r"no place for layers\.0\.blocks\.0\.temporal\.offset\.weight"),
        ({"patch_norm": True}, r"no place for patch_embed\.norm\.weight"),
    ],
    ids=str,
)
def test_what_the_release_cannot_hold_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_release(swin(**options).state_dict(), clip_length=8)


@pytest.mark.parametrize("options", [{"temporal": "conv"}, {"offset": "conv3d"}], ids=str)
def test_variants_have_no_place_in_the_releases_resnet(options: dict[str, Any]) -> None:
    model = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, width=4, **options)
    with pytest.raises(ValueError, match=r"the release has no place for layer2\.1\.temporal\."):
        to_release(model.state_dict(), clip_length=8)


def test_a_trained_stem_is_no_images() -> None:
    model = build_model("c2d_sifa_resnet50", num_classes=5, clip_length=8, width=4)
    with pytest.raises(ValueError, match=r"conv1\.weight looks at more than one frame"):
        to_torchvision(model.state_dict())
    with pytest.raises(ValueError, match="torchvision's Swin has a norm after the embedding"):
        to_torchvision(swin().state_dict())


OTHERS = {
    "resnet18": torchvision.models.resnet18,
    "resnet34": torchvision.models.resnet34,
    "resnet152": torchvision.models.resnet152,
    "resnext50": torchvision.models.resnext50_32x4d,
    "wide": torchvision.models.wide_resnet50_2,
    "swin_t": torchvision.models.swin_t,
    "swin_v2_s": torchvision.models.swin_v2_s,
}


@pytest.mark.parametrize("name", OTHERS)
def test_unknown_image_networks(name: str) -> None:
    with torch.device("meta"):
        assert not is_known_image_network(OTHERS[name]().state_dict())


def test_known_image_networks() -> None:
    with torch.device("meta"):
        for build in (torchvision.models.resnet50, torchvision.models.resnet101, torchvision.models.swin_s):
            assert is_known_image_network(build().state_dict())
