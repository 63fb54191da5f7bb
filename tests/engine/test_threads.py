"""How many threads a network gets on the CPU."""

import pytest
import torch
from torch import nn

from engine.threads import choose_threads, cpu_threads


def network(parameters: int) -> nn.Module:
    with torch.device("meta"):
        return nn.Linear(parameters, 1, bias=False)


def test_one_for_a_narrow_network_all_for_a_wide_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with cpu_threads(3):
        assert choose_threads(network(2_700_000), (8, 64, 64)) == 1, "the demo"
        assert choose_threads(network(2_700_000), (16, 112, 112)) == 1, "settings/own_videos.yml"
        assert choose_threads(network(43_000_000), (16, 224, 224)) == 3, "the paper"


def test_the_variable_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with cpu_threads(2):
        assert choose_threads(network(10), (1, 1, 1)) == 2


def test_threads_for_a_while() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
