"""Networks by name, and their options."""

from typing import Any

import pytest
import torch

from models import Network, TemporalModelling, build_model, list_models
from models.sifa_resnet import SIFANetOptions
from models.sifa_swin import SIFASwinOptions

RESNET, SWIN = "c2d_sifa_resnet50", "c2d_sifa_swin_vit_s_p4_w7"


@pytest.mark.parametrize("net_name", list_models())
def test_every_name_can_be_built(net_name: str) -> None:
    with torch.device("meta"):
        model = build_model(net_name, num_classes=5, clip_length=16)
    assert isinstance(model, Network)
    assert model.get_parameter("fc.weight").shape[0] == 5


def test_unknown_network() -> None:
    with pytest.raises(ValueError, match=r"net_name must be one of c2d_sifa_resnet26, .*, got 'resnet50'"):
        build_model("resnet50", num_classes=5, clip_length=8)


@pytest.mark.parametrize(
    ("net_name", "option", "known"),
    [
        (
            RESNET,
            {"stochastic_depth": 0.1},
            "num_classes, clip_length, sifa_kernel, stages, temporal, offset, offset_init, branch_scale, "
            "cosine, projection, dropout_ratio, width, stem_frames, caffe_style, dual_head, activation_checkpointing",
        ),
        (
            SWIN,
            {"dual_head": True},
            "num_classes, clip_length, width, sifa_kernel, stages, temporal, offset, offset_init, branch_scale, "
            "cosine, projection, dropout_ratio, stochastic_depth, patch_norm, activation_checkpointing",
        ),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(net_name: str, option: dict[str, Any], known: str) -> None:
    with pytest.raises(ValueError, match=f"^{net_name} has no option {next(iter(option))}; it has {known}$"):
        build_model(net_name, num_classes=5, clip_length=8, **option)


@pytest.mark.parametrize(("net_name", "option"), [(RESNET, "depths"), (SWIN, "heads"), (RESNET, "temporal_modelling")])
def test_what_the_name_determines_is_no_option(net_name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"has no option {option};"):
        build_model(net_name, num_classes=5, clip_length=8, **{option: None})


def test_options_change_one_value_each() -> None:
    """Those of a network and those of its temporal modelling are given alike; the others keep their defaults."""
    with torch.device("meta"):
        model = build_model(RESNET, num_classes=5, clip_length=8, sifa_kernel=(1, 3, 5, 7), width=16)
    sizes = {stage: {m.kernel_size for _, m in model.sifa_modules(stage)} for stage in model.stages_with_sifa()}
    assert sizes == {"res3": {3}, "res4": {5}, "res5": {7}}
    assert model.get_parameter("conv1.weight").shape[0] == 16


def test_options_are_constants() -> None:
    """Networks share them: a change of one would be a change of all."""
    for options in (SIFANetOptions(depths=(1, 1, 1, 1)), SIFASwinOptions(width=6, heads=3, stochastic_depth=0.0)):
        with pytest.raises(AttributeError):
            options.width = 4  # type: ignore[misc]
    with pytest.raises(AttributeError):
        TemporalModelling().temporal = "conv"  # type: ignore[misc]
