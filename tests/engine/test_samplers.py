"""The shares of processes: of a training epoch, of what is left of it, of a validation; repeated augmentation."""

from typing import Any

import pytest
import torch

from engine.distributed import Process
from engine.samplers import (
    AheadSampler,
    DistributedVideoSampler,
    RepeatedSampler,
    ResumableSampler,
    TrainSampler,
    shuffle_in_window,
)
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


SHARDS = [shard for shard in range(9) for _ in range(20 + shard)]  # of unequal sizes


@pytest.mark.parametrize("window", [1, 3, 1000])
def test_few_shards_are_in_use_at_a_time(window: int) -> None:
    def draw(seed: int) -> list[int]:
        return shuffle_in_window(torch.tensor(SHARDS) * 7, window, torch.Generator().manual_seed(seed)).tolist()

    order = draw(0)
    assert sorted(order) == list(range(len(SHARDS)))
    places = {shard: [i for i, index in enumerate(order) if SHARDS[index] == shard] for shard in range(9)}
    in_use = [sum(found[0] <= i <= found[-1] for found in places.values()) for i in range(len(order))]
    assert max(in_use) == min(window, 9)
    assert draw(0) == order
    assert draw(1) != order
    first = {order[found[0]] for found in places.values()}
    assert len(first - {SHARDS.index(shard) for shard in range(9)}) > 4, "within a shard, too, the order is random"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_of_a_training_epoch_in_shards(world: int) -> None:
    """Each sample once; the processes draw from the same shards at the same time; the order is that of one process."""
    options: Any = {"batch_size": 2, "iter_size": 1, "seed": 0, "shards": SHARDS, "window": 2}
    alone = [index for index, _ in TrainSampler(len(SHARDS), ALONE, **options)]
    shares = [
        [index for index, _ in TrainSampler(len(SHARDS), Process(rank, world, torch.device("cpu")), **options)]
        for rank in range(world)
    ]
    together = [index for step in zip(*shares, strict=True) for index in step]
    assert len(set(together)) == len(together) == len(SHARDS) // (2 * world) * 2 * world
    assert together == alone[: len(together)]


def test_a_later_sample_goes_with_each_key_also_after_a_stop() -> None:
    sampler = TrainSampler(50, ALONE, batch_size=2, iter_size=1, seed=0)
    keys = list(sampler)
    ahead = AheadSampler(sampler, 7)
    assert list(ahead) == [(*key, keys[min(i + 7, 49)][0]) for i, key in enumerate(keys)]
    rest = ResumableSampler(ahead)
    rest.done = 20
    assert list(rest) == list(ahead)[20:]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_validation_goes_through_the_shards_one_by_one(world: int) -> None:
    shards, views = [2, 0, 1, 0, 2, 1, 0], 2
    shares = [
        list(DistributedVideoSampler(range(7), views, Process(rank, world, torch.device("cpu")), shards))
        for rank in range(world)
    ]
    assert sorted(view for share in shares for view in share) == list(range(14))
    for share in shares:
        assert [shards[view // views] for view in share] == sorted(shards[view // views] for view in share)
