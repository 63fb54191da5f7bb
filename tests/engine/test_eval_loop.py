"""A validation scores whole videos, whatever the batch size and the number of views."""

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from datasets import normalise
from engine.eval_loop import evaluate
from engine.prefetch import DevicePrefetcher
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
