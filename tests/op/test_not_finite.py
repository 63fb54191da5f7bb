"""Infinite and NaN values: they never get lost, and a pixel without weight contributes nothing, whatever it holds."""

import math

import pytest
import torch

from cuda_sifa import inter_frame_attention, reference
from tests.op.cases import CASES, Case, finite_where_reference_is_not


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_what_is_not_finite_in_the_reference_is_not_finite_in_the_op(dtype: torch.dtype) -> None:
    lost = {
        (str(case), seed): names
        for seed, case in enumerate(CASES)
        if (names := finite_where_reference_is_not(case, dtype, seed))
    }
    assert lost == {}


@pytest.mark.parametrize("function", [inter_frame_attention, reference.inter_frame_attention], ids=["op", "reference"])
@pytest.mark.parametrize("offset", [None, 0.0, 30.0], ids=str)
def test_a_pixel_without_weight_contributes_nothing(function: object, offset: float | None) -> None:
    assert callable(function)
    case = Case(shape=(1, 3, 2, 5, 6), offset=None)
    clean, _ = case.inputs()
    x = clean.clone()
    x[0, 1, 0, 0, 0] = math.inf  # a key of frame 0 and a query of frame 1
    field = None if offset is None else torch.full((1, 2, 18, 5, 6), offset, dtype=torch.float64)
    result, expected = function(x, field), function(clean, field)
    finite = torch.ones(5, 6, dtype=torch.bool)
    if offset != 30.0:  # then all points are outside the map
        finite[:2, :2] = False
    assert torch.equal(result[0, 0].isfinite().all(0), finite)
    assert torch.equal(result[0, 0, :, finite], expected[0, 0, :, finite])
    assert torch.equal(result[0, 1].isfinite().all(0).logical_not().sum(), torch.tensor(int(offset != 30.0)))
    assert torch.equal(function(x[:, 1:2]), torch.zeros(1, 1, 2, 5, 6))  # no pair of frames
