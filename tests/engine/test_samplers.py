"""The shares of processes: of a training epoch, of what is left of it, of a validation; repeated augmentation."""

from typing import Any

import pytest
import torch

from engine.distributed import Process
from engine.samplers import DistributedVideoSampler, RepeatedSampler, ResumableSampler, TrainSampler
from tests.engine.runs import ALONE


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_shares_of_a_validation_are_whole_videos_each_once(world: int) -> None:
    shares = [
        list(DistributedVideoSampler(range(10), 3, Process(rank, world, torch.device("cpu")))) for rank in range(world)
    ]
    assert sorted(view for share in shares for view in share) == list(range(30))
    for share in shares:
        assert len(share) % 3 == 0
        assert all(share[i] // 3 == share[i - i % 3] // 3 for i in range(len(share)))


def test_the_rest_of_an_epoch() -> None:
    sampler = TrainSampler(50, ALONE, batch_size=2, iter_size=3, seed=0)
    rest, whole = ResumableSampler(sampler), list(sampler)
    for done in (0, 6, 48):
        rest.done = done
        assert list(rest) == whole[done:]
        assert len(rest) == len(whole) - done


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_shares_of_a_training_epoch(world: int) -> None:
    def shares(epoch: int, seed: int = 0) -> list[list[tuple[int, int]]]:
        drawn = []
        for rank in range(world):
            sampler = TrainSampler(50, Process(rank, world, torch.device("cpu")), batch_size=2, iter_size=3, seed=seed)
            sampler.epoch = epoch
            assert len(sampler) == len(list(sampler)) == 50 // (6 * world) * 6
            drawn.append(list(sampler))
        return drawn

    first = shares(0)
    indices = [index for share in first for index, _ in share]
    assert len(set(indices)) == len(indices)
    assert {epoch for share in shares(4) for _, epoch in share} == {4}
    assert shares(0) == first
    assert [[i for i, _ in s] for s in shares(1)] != [[i for i, _ in s] for s in first]
    assert shares(0, seed=1) != first


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
