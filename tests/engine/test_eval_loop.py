"""A validation scores whole videos, whatever the batch size and the number of views."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets import normalise
from engine import eval_loop
from engine.eval_loop import evaluate
from engine.prefetch import DevicePrefetcher, HostCopies
from engine.samplers import DistributedVideoSampler
from tests.engine.runs import ALONE, CLASSES, Clips, Heads


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
@pytest.mark.parametrize("views", [1, 3])
def test_a_validation_scores_each_video_by_the_mean_of_its_views(batch_size: int, views: int) -> None:
    data: Any = Clips(10, views)
    model = Heads()
    sampler = DistributedVideoSampler(range(10), views, ALONE)
    batches = DevicePrefetcher(DataLoader(data, batch_size=batch_size, sampler=sampler), ALONE.device, normalise)
    metrics = evaluate(model, batches, sampler, data)
    with torch.no_grad():
        heads = model(normalise(data.clips))
    scores = torch.stack([head.softmax(1) for head in heads]).mean(0).view(10, views, CLASSES).mean(1)
    order = scores.argsort(dim=1, descending=True)
    hits = [(order[:, :k] == data.labels[:, None]).any(1).double().mean().item() * 100 for k in (1, 3, 5)]
    assert [metrics.top1, metrics.top3, metrics.top5] == pytest.approx(hits)
    assert metrics.videos == 10


def test_a_batch_is_read_when_the_next_one_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the GPU would be idle while the host waits for scores and launches the next batch."""
    events: list[str] = []

    class Recorded(HostCopies):
        def read(self) -> list[Tensor]:
            events.append("read")
            return super().read()

    class Network(nn.Module):
        def forward(self, clip: Tensor) -> tuple[Tensor, ...]:
            events.append("launch")
            return heads(clip)

    heads = Heads()
    data: Any = Clips(6, 1)
    sampler = DistributedVideoSampler(range(6), 1, ALONE)
    batches = DevicePrefetcher(DataLoader(data, batch_size=2, sampler=sampler), ALONE.device, normalise)
    monkeypatch.setattr(eval_loop, "HostCopies", Recorded)
    assert evaluate(Network(), batches, sampler, data).videos == 6
    assert events == ["launch", "launch", "read", "launch", "read", "read"]
