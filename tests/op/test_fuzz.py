"""Properties of all calls, not of chosen ones: see fuzz.py."""

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.op.fuzz import check


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_every_call_equals_the_reference_or_is_refused_as_there(data: st.DataObject) -> None:
    torch.manual_seed(0)
    check(lambda options: data.draw(st.sampled_from(list(options))))


def test_random_calls() -> None:
    ends = set()
    for seed in range(300):
        torch.manual_seed(seed)
        ends.add(check(random.Random(seed).choice))
    assert {"equal", "refused (ValueError)"} <= ends, "legal and illegal calls were among them"
