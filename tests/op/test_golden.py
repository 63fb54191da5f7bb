"""The golden results of the authors' release: eleven cases, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cuda_sifa import inter_frame_attention, reference
from tests.op.cases import relative_error

FILE = Path(__file__).parents[1] / "data" / "op.npz"
with np.load(FILE) as arrays:
    NAMES = sorted({key.split("/")[0] for key in arrays.files})
TOLERANCE = 1e-9  # relative; measured: 1e-15


def load(name: str, device: torch.device) -> dict[str, Tensor]:
    """One case, with the axes of the release, (N, C, T, H, W)."""
    with np.load(FILE) as arrays:
        return {
            key.split("/")[1]: torch.from_numpy(np.asarray(arrays[key])).to(device)
            for key in arrays.files
            if key.startswith(name + "/")
        }


def test_all_eleven_cases_are_there() -> None:
    assert len(NAMES) == 11


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", [inter_frame_attention, reference.inter_frame_attention], ids=["op", "reference"])
def test_forward_and_both_gradients(name: str, function: object, device: torch.device) -> None:
    case = load(name, device)
    x = case["x"].transpose(1, 2).requires_grad_()
    offset = case["offset"].transpose(1, 2)[:, 1:].clone().requires_grad_()  # index 0 is never used
    attended = function(x, offset, int(case["kernel_size"]), int(case["dilation"]))  # type: ignore[operator]
    grads = torch.autograd.grad(attended, [x, offset], case["grad_attended"].transpose(1, 2))
    assert relative_error(attended.transpose(1, 2), case["attended"]) < TOLERANCE
    assert relative_error(grads[0].transpose(1, 2), case["grad_x"]) < TOLERANCE
    assert relative_error(grads[1], case["grad_offset"].transpose(1, 2)[:, 1:]) < TOLERANCE
    assert not case["grad_offset"][:, :, 0].any()


@pytest.mark.parametrize("name", NAMES)
def test_correlation_and_aggregation_of_the_release(name: str) -> None:
    case = load(name, torch.device("cpu"))
    settings = int(case["kernel_size"]), int(case["dilation"])
    weights = reference.correlation(case["x"], case["offset"], *settings)
    assert relative_error(weights, case["correlation"]) < TOLERANCE
    values = reference.aggregation(case["x"], weights, case["offset"], *settings)
    assert relative_error(values, case["aggregation"]) < TOLERANCE
