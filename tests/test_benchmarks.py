"""What the op is measured against computes the same."""

from collections.abc import Callable

import pytest
import torch

from benchmarks.baselines import by_gather, by_grid_sample
from cuda_sifa import reference
from tests.op.cases import Case, relative_error


@pytest.mark.parametrize("function", [by_gather, by_grid_sample])
@pytest.mark.parametrize("offset", [1.0, None])
def test_the_baselines_are_the_op(function: Callable, offset: float | None) -> None:
    x, field = Case(offset=offset).inputs(torch.float32)
    assert relative_error(function(x, field), reference.inter_frame_attention(x, field)) < 1e-5
