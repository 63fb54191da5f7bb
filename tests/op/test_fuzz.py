"""Properties of random calls: see fuzz.py."""

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.op.fuzz import check


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_every_call_equals_the_reference_or_both_reject_it(data: st.DataObject) -> None:
    torch.manual_seed(0)
    check(lambda options: data.draw(st.sampled_from(list(options))))


def test_random_calls() -> None:
    ends = set()
    for seed in range(300):
        torch.manual_seed(seed)
        ends.add(check(random.Random(seed).choice))
    assert {"equal", "rejected (ValueError)"} <= ends, "valid and invalid calls were among them"
