"""Items are read in threads and computed in batches: results in order, errors alone."""

import threading
import time

import pytest
import torch
from torch import Tensor

from sifa.batching import Read, in_batches

VIEWS = [1, 3, 0, 2, 5, 1, 0, 4]  # of each item; one without views cannot be read


def read(item: int) -> Read:
    time.sleep(0.002 * (item % 3))  # the later ones are ready first
    if not VIEWS[item]:
        raise ValueError(f"item {item}")
    return Read(torch.full((VIEWS[item], 2), item), frames=10 * item)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_results_are_in_order_and_complete(batch_size: int) -> None:
    batches: list[Tensor] = []

    def compute(views: Tensor) -> Tensor:
        batches.append(views)
        return views[:, :1] + 0.5

    results = list(in_batches(range(8), read, compute, batch_size=batch_size, workers=3, ahead=4))
    assert [result.item for result in results] == list(range(8))
    for result in results:
        if VIEWS[result.item]:
            assert result.error is None
            assert result.read is not None
            assert result.scores is not None
            assert result.read.frames == 10 * result.item
            assert result.scores.tolist() == [[result.item + 0.5]] * VIEWS[result.item]
        else:
            assert isinstance(result.error, ValueError)
            assert str(result.error) == f"item {result.item}"
    sizes = list(map(len, batches))
    assert sum(sizes) == sum(VIEWS)
    assert all(size == batch_size for size in sizes[:-1]), "every batch is full, but the last"


def test_an_error_of_the_network_ends_all_and_threads_are_done() -> None:
    def compute(views: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        list(in_batches(range(8), read, compute, batch_size=2, workers=2, ahead=2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_little_is_read_ahead() -> None:
    started: list[int] = []

    def count(item: int) -> Read:
        started.append(item)
        return Read(torch.zeros(1, 2), 1)

    results = in_batches(range(1000), count, lambda views: views, batch_size=1, workers=2, ahead=3)
    for _ in range(5):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(started) <= 5 + 3 + 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_the_threads_of_pytorch_are_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(in_batches(range(2), read, lambda views: views, batch_size=2, workers=2, ahead=2))
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), later) == (2, [2])
    finally:
        torch.set_num_threads(before)
