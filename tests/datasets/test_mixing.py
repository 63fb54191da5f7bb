"""Mixed batches: shares that agree with the pixels, draws that depend on the seed and the place in the run alone."""

from typing import Any

import pytest
import torch

from datasets.mixing import MixupCutmix
from engine.distributed import Process
from engine.samplers import RepeatedSampler, TrainSampler

CLASSES = 6


def batch(size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip i is the number i all over, and of class i."""
    return torch.arange(size).float().view(-1, 1, 1, 1, 1).expand(size, 3, 2, 10, 14), torch.arange(size)


def test_smoothing_alone_leaves_the_clips() -> None:
    clips, labels = batch()
    mixed, targets = MixupCutmix(CLASSES, label_smoothing=0.3)(clips, labels)
    assert torch.equal(mixed, clips)
    assert targets[2].tolist() == pytest.approx([0.05, 0.05, 0.75, 0.05, 0.05, 0.05])
    assert not MixupCutmix(CLASSES).enabled


def test_mixup_weighs_clips_and_targets_alike() -> None:
    clips, labels = batch()
    seen = set()
    for i in range(20):
        mixed, targets = MixupCutmix(CLASSES, mixup_alpha=0.8)(clips, labels, (i,))
        assert torch.allclose(targets.sum(1), torch.ones(5))
        assert ((targets > 0).sum(1) == 2).all(), "a clip never goes with itself"
        expected = (targets * torch.arange(CLASSES)).sum(1)
        assert torch.allclose(mixed, expected.view(-1, 1, 1, 1, 1).expand_as(mixed), atol=1e-5)
        seen.add(round(targets[0, 0].item(), 3))
    assert len(seen) > 10


def test_cutmix_weighs_targets_by_the_area_of_one_box_in_all_frames() -> None:
    clips, labels = batch()
    shares = []
    for i in range(30):
        mixed, targets = MixupCutmix(CLASSES, cutmix_alpha=1.0)(clips, labels, (i,))
        own = mixed == clips
        assert torch.equal(own, own[:1, :1, :1].expand_as(own))
        assert torch.allclose(targets.diagonal(), own.float().mean((1, 2, 3, 4)))
        assert torch.allclose(targets.sum(1), torch.ones(5))
        rows, columns = (~own[0, 0, 0]).any(1).nonzero(), (~own[0, 0, 0]).any(0).nonzero()
        assert (~own[0, 0, 0]).sum() == len(rows) * len(columns), "a box"
        shares.append(targets[0, 0].item())
    assert min(shares) < 0.4
    assert max(shares) > 0.9


def test_with_both_a_batch_has_one_of_them() -> None:
    clips, labels = batch()
    whole = [
        bool((mixed == mixed[:, :1, :1, :1, :1]).all())
        for mixed, _ in (MixupCutmix(CLASSES, mixup_alpha=1, cutmix_alpha=1)(clips, labels, (i,)) for i in range(40))
    ]
    assert 10 < sum(whole) < 32


def test_a_draw_depends_on_the_seed_and_the_place_in_the_run_alone() -> None:
    clips, labels = batch()

    def draw(seed: int, *place: int) -> float:
        torch.manual_seed(len(place))
        return MixupCutmix(CLASSES, seed, mixup_alpha=1)(clips, labels, place)[1].max().item()

    assert draw(0, 1, 2, 3) == draw(0, 1, 2, 3)
    assert len({draw(0, 1, 2, 3), draw(1, 1, 2, 3), draw(0, 2, 2, 3), draw(0, 1, 3, 3), draw(0, 1, 2, 4)}) == 5


def test_a_batch_of_one_is_left_alone() -> None:
    clips, labels = batch(1)
    mixed, targets = MixupCutmix(CLASSES, mixup_alpha=1, cutmix_alpha=1)(clips, labels)
    assert torch.equal(mixed, clips)
    assert targets.tolist() == [[1, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_repeats_follow_one_another_and_fill_the_epoch(repeats: int) -> None:
    options: Any = {"batch_size": 2, "iter_size": 2, "seed": 0}
    sampler = TrainSampler(11, Process(0, 1, torch.device("cpu")), **options)
    repeated = RepeatedSampler(sampler, repeats)
    sampler.epoch = 4
    keys, base = list(repeated), list(sampler)
    assert len(keys) == len(repeated) == len(base) == 8
    assert keys == [(*base[i // repeats], i % repeats) for i in range(8)]
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        RepeatedSampler(sampler, 0)
