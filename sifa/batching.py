"""Items are read in threads while earlier ones are computed, many in a call; results have the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Read:
    """What a network computes for one item.

    Args:
        views: (n, ...), at least one.
        frames: of the video.
    """

    views: Tensor
    frames: int


@dataclass(frozen=True)
class Result(Generic[Item]):
    """The result of one item: what was read of it with the scores of its views, (n, classes), or what went wrong."""

    item: Item
    read: Read | None = None
    scores: Tensor | None = None
    error: Exception | None = None


def in_batches(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    compute: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    workers: int,
    ahead: int,
) -> Iterator[Result[Item]]:
    """Computes items in batches of views, which need not be of one item.

    A batch does not depend on how fast items are read, so the same items give the same bits.

    Args:
        items: any.
        read: called in one of the threads. Whatever it raises is the result of that item alone.
        compute: called in this thread, from (batch_size, ...) or fewer views to scores (batch_size, classes).
        batch_size: views of a call.
        workers: threads.
        ahead: items that are read, or waiting for a thread, while a batch is computed.
    """
    waiting: deque[tuple[Item, Read | Exception]] = deque()  # read, and not computed as a whole
    views = torch.empty(0)  # of these, not computed
    scores: list[Tensor] = []
    for item, result in _read_ahead(items, read, workers, ahead):
        waiting.append((item, result))
        if isinstance(result, Read):
            views = torch.cat([views, result.views]) if len(views) else result.views
            while len(views) >= batch_size:
                scores.append(compute(views[:batch_size]))
                views = views[batch_size:]
        yield from _finished(waiting, scores)
    if len(views):
        scores.append(compute(views))
    yield from _finished(waiting, scores)


def _read_ahead(
    items: Iterable[Item], read: Callable[[Item], Read], workers: int, ahead: int
) -> Iterator[tuple[Item, Read | Exception]]:
    """What was read of each item, or the error, in the order of the items."""
    # Several items are read at once: an operator of one of them has one thread.
    pool = ThreadPoolExecutor(workers, "read", initializer=torch.set_num_threads, initargs=(1,))
    pending: deque[tuple[Item, Future[Read]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(read, item)))
            if len(pending) > ahead:
                yield _result(*pending.popleft())
        while pending:
            yield _result(*pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch.get_num_threads())  # for threads to come, which would do as the pool's did


def _result(item: Item, future: "Future[Read]") -> tuple[Item, Read | Exception]:
    try:
        return item, future.result()
    except Exception as error:
        return item, error


def _finished(waiting: deque[tuple[Item, Read | Exception]], scores: list[Tensor]) -> Iterator[Result[Item]]:
    """Takes the items whose views all have scores from the front of both lists."""
    while waiting:
        item, result = waiting[0]
        if isinstance(result, Exception):
            waiting.popleft()
            yield Result(item, error=result)
            continue
        if sum(map(len, scores)) < len(result.views):
            return
        waiting.popleft()
        joined = torch.cat(scores)
        scores[:] = [joined[len(result.views) :]]
        yield Result(item, result, joined[: len(result.views)])
