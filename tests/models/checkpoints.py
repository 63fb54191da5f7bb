"""Networks, and checkpoints for them as others name and shape them."""

from typing import Any

import torch
from torch import Tensor, nn

from models import Network, build_model
from models.sifa_resnet import SIFANet
from tests.models.golden import MANIFEST, MODELS, release_entry

CASE = MODELS["sifa_net_r50_k5"]
SWIN = "c2d_sifa_swin_vit_s_p4_w7"
EVEN = {str(i) for i in range(0, 18, 2)}  # blocks of the release's Swin without window shift


def network() -> SIFANet:
    model = build_model(
        CASE["net_name"], num_classes=CASE["num_classes"], clip_length=8, sifa_kernel=CASE["sifa_kernel"]
    )
    assert isinstance(model, SIFANet)
    return model


def swin(**options: Any) -> Network:
    """Narrow: the names are what is tested."""
    return build_model(SWIN, num_classes=5, clip_length=8, **{"width": 6, **options})


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


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


def narrow_release() -> dict[str, Tensor]:
    """A checkpoint of the release's Swin with a sixteenth of the channels."""

    def narrow(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if name.endswith(("relative_position_index", "attn_mask", "bias_table", "def_cor.weight")):
            return shape
        sizes = (side // 16 if side % 96 == 0 else side for side in shape)
        return (5, *list(sizes)[1:]) if name.startswith("fc.") else tuple(sizes)

    return {name: release_entry(name, narrow(name, shape), 7) for name, shape in MANIFEST[SWIN].items()}
