"""Which parameters decay, and how fast each learns."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from common.errors import UserError
from engine.optim import build_optimizer, build_scheduler, freeze, scaled_to_step
from engine.schema import Optimization
from models import build_model

MODEL = build_model("c2d_sifa_swin_vit_s_p4_w7", num_classes=5, clip_length=4, width=3, patch_norm=True)
NAMES = {id(parameter): name for name, parameter in MODEL.named_parameters()}


def groups(**settings: Any) -> list[dict[str, Any]]:
    return build_optimizer(MODEL, Optimization(**settings)).param_groups


def test_by_default_all_parameters_are_alike() -> None:
    (group,) = groups(weight_decay=0.02)
    assert [NAMES[id(p)] for p in group["params"]] == list(NAMES.values())
    assert group["weight_decay"] == 0.02


def test_adamw_as_configured() -> None:
    optimizer = build_optimizer(MODEL, Optimization(optimizer="adamw", momentum=0.8, base_learning_rate=3e-4))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)
    assert optimizer.param_groups[0]["lr"] == 3e-4


def test_norms_biases_and_position_tables_do_not_decay() -> None:
    decaying, others = groups(decay_all=False, weight_decay=0.02)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.02, 0.0)
    spared = {NAMES[id(p)] for p in others["params"]}
    assert spared == {n for n in NAMES.values() if "norm" in n or n.endswith(("bias", "position_bias_table"))}
    assert {NAMES[id(p)] for p in decaying["params"]} == set(NAMES.values()) - spared


def test_multipliers_of_layers() -> None:
    settings = {"layer_multipliers": {"*": 0.1, "fc.*": 1.0, "*.temporal.*": 2.0}, "base_learning_rate": 0.5}
    rates = {NAMES[id(p)]: group["lr"] for group in groups(**settings) for p in group["params"]}
    assert rates.keys() == set(NAMES.values())
    for name, rate in rates.items():
        assert rate == pytest.approx(0.5 if name.startswith("fc.") else 1.0 if ".temporal." in name else 0.05), name
    assert groups(**settings)[0]["lr"] == 0.5  # what the log shows


def test_the_schedule_scales_every_group_alike() -> None:
    settings = Optimization(epochs=2, warmup_epoch=1, base_learning_rate=0.5, layer_multipliers={"fc.*": 0.1})
    optimizer = build_optimizer(MODEL, settings)
    scheduler = build_scheduler(optimizer, settings, 4)
    for _ in range(8):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second == pytest.approx(0.1 * first)
        optimizer.step()
        scheduler.step()


def test_a_pattern_of_a_base_that_matches_nothing_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    settings = Optimization(layer_multipliers={"fc.*": 2.0, "gone.*": 0.1}, freeze=["other.*", "fc.*"])
    settings.allow_unused(frozenset(["gone.*", "other.*"]))
    assert len(build_optimizer(MODEL, scaled_to_step(settings, 1)).param_groups) == 2
    assert "layer_multipliers: no parameter of this network is named like gone.*" in caplog.text
    assert "freeze: no parameter of this network is named like other.*" in caplog.text
    assert freeze(MODEL, settings, 0)
    settings.allow_unused(frozenset(["gone.*"]))
    with pytest.raises(UserError, match=r"freeze: no parameter is named like other\.\*"):
        freeze(MODEL, settings, 0)
    freeze(MODEL, Optimization(), 0)


def test_errors() -> None:
    with pytest.raises(
        UserError, match=r"layer_multipliers: no parameter is named like backbone\.\*; there are patch_"
    ):
        groups(layer_multipliers={"fc.*": 2.0, "backbone.*": 0.1})
    with pytest.raises(ValidationError, match="nesterov goes with optimizer sgd, got adamw"):
        Optimization(optimizer="adamw", nesterov=True)
    with pytest.raises(ValidationError, match="greater than 0"):
        Optimization(layer_multipliers={"fc.*": 0.0})
