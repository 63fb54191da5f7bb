"""From the loader to the device: copies that run beside the computation, and the time that was spent waiting."""

import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.batches import normalise
from engine.distributed import any_process


class Feed:
    """A loader's (clip, label, index) batches on a device, clips as the network takes them; index stays on the CPU.

    On a GPU a batch is copied in a stream of its own, from pinned memory, while the one before is computed.

    Attributes:
        waited: seconds spent waiting for the loader, so far.
    """

    def __init__(self, loader: Iterable, device: torch.device) -> None:
        self.loader, self.device, self.waited = loader, device, 0.0
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        batches = iter(self.loader)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            clip, label, index = batch
            clip, label = self._copy(clip, label)
            yield normalise(clip), label, index  # bytes travel four times as fast as what they become

    def _copy(self, *tensors: Tensor) -> list[Tensor]:
        if self._copying is None:
            return list(tensors)
        with torch.cuda.stream(self._copying):
            copies = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._copying)
        for copy in copies:
            copy.record_stream(current)
        return copies


def in_step(feed: Feed, dataset: Dataset) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """A feed's batches, and as many more without labels and indices as another process has more of them.

    dataset: the loader's; its first sample stands in where this process has no batch at all.
    """
    batches = iter(feed)
    batch = next(batches, None)
    clip = None
    while any_process(batch is not None):
        if batch is not None:
            clip = batch[0]
            yield batch
            batch = next(batches, None)
        else:
            if clip is None:
                clip = normalise(dataset[0][0][None].to(feed.device))
            nothing = torch.zeros(0, dtype=torch.int64)
            yield clip, nothing, nothing
