"""Whole networks against the authors' own figures."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from engine.optim import build_optimizer
from engine.schema import Optimization
from models import build_model, load_release_state_dict
from tests.models.golden import MODELS, STEPS, build, clips, our_name, release_state_dict
from tests.op.cases import relative_error

FLOAT64, FLOAT32 = 1e-7, 1e-4  # relative to the largest value


def expected_logits(values: list) -> list[Tensor]:
    return [torch.tensor(head, dtype=torch.float64) for head in values]


def loss_of(logits: tuple[Tensor, ...], labels: list[int]) -> Tensor:
    return sum((cross_entropy(head, torch.tensor(labels)) for head in logits), torch.zeros(()))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, FLOAT64), (torch.float32, FLOAT32)], ids=str)
def test_logits(name: str, dtype: torch.dtype, tolerance: float) -> None:
    case = MODELS[name]
    model = build(case).to(dtype).eval()
    with torch.no_grad():
        logits = model(clips(case).to(dtype))
    expected = expected_logits(case["logits"])
    assert len(logits) == len(expected)
    for ours, theirs in zip(logits, expected, strict=True):
        assert relative_error(ours, theirs) < tolerance


@pytest.mark.parametrize("name", [name for name in MODELS if "grad_norms" in MODELS[name]])
def test_training_loss_and_the_gradient_of_every_parameter(name: str) -> None:
    case = MODELS[name]
    model = build(case).train()
    loss = loss_of(model(clips(case)), case["labels"])
    loss.backward()
    assert loss.item() == pytest.approx(case["train_loss"], rel=FLOAT64)
    norms = {ours: p.grad.norm().item() for ours, p in model.named_parameters() if p.grad is not None}
    assert norms == pytest.approx({our_name(name): norm for name, norm in case["grad_norms"].items()}, rel=FLOAT64)


@pytest.mark.parametrize("case", STEPS, ids=lambda case: case["net_name"])
def test_optimiser_steps(case: dict[str, Any]) -> None:
    """The release's loop: gradients of iter_size iterations added up, clipped, one step of SGD."""
    model = build(case).train()
    settings = Optimization(
        base_learning_rate=case["learning_rate"],
        momentum=case["momentum"],
        weight_decay=case["weight_decay"],
    )
    optimizer = build_optimizer(model, settings)
    losses, norms = [], []
    for i in range(case["iterations"]):
        labels = [(i * case["batch"] + j) % case["num_classes"] for j in range(case["batch"])]
        loss = loss_of(model(clips(case, case["seed"] + 1000 + i)), labels)
        (loss / case["iter_size"] * case["loss_weight"]).backward()
        losses.append(loss.item())
        if (i + 1) % case["iter_size"] == 0:
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), case["clip_gradient"]).item())
            optimizer.step()
            optimizer.zero_grad()
    assert losses == pytest.approx(case["losses"], rel=FLOAT64)
    assert norms == pytest.approx(case["grad_norms_before_clipping"], rel=FLOAT64)
    with torch.no_grad():
        after = model.eval()(clips({**case, "batch": 1}))
    for ours, theirs in zip(after, expected_logits(case["logits_after"]), strict=True):
        assert relative_error(ours, theirs) < FLOAT64


def test_a_wrong_offset_order_would_show() -> None:
    """The figures are sensitive enough to tell vertical from horizontal displacements."""
    case = MODELS["sifa_net_r50_k5"]
    state = release_state_dict(case)
    for name, value in state.items():
        if "conv_offset" in name:
            state[name] = value.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    model = build_model(
        case["net_name"], num_classes=case["num_classes"], clip_length=8, sifa_kernel=case["sifa_kernel"]
    ).double()
    load_release_state_dict(model, state)
    with torch.no_grad():
        logits = model.eval()(clips(case))
    assert relative_error(logits[0], expected_logits(case["logits"])[0]) > 1e-3
