"""From a data set to the device: loader processes, copies that overlap the computation, and the time spent waiting."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from engine import loader_processes
from engine.distributed import any_rank

Batch = tuple[Tensor, Tensor, Tensor]  # clip, label, index
# From Python 3.14 on it would be the fork server. A signal to stop the run, sent to all its processes, ends the server,
# and the workers with it, before the run has saved its state.
_START_METHOD = "fork" if sys.platform == "linux" else None


def build_loader(
    dataset: Dataset,
    sampler: Sampler,
    batch_size: int,
    *,
    workers: int,
    device: torch.device,
    start_worker: Callable[[int], None],
    start_method: str | None = None,
) -> DataLoader:
    """A DataLoader of (clip, label, index) batches, whose processes stay for the next epoch.

    Args:
        dataset: gives (clip, label, index) for each key of the sampler.
        sampler: the order of the samples.
        batch_size: samples of a batch.
        workers: processes; 0 loads in this one.
        device: where batches will go; for a GPU they are put into pinned memory.
        start_worker: called with its number in each worker when it starts.
        start_method: of the workers; None: fork, on systems without it Python's own.
    """
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        multiprocessing_context=(start_method or _START_METHOD) if workers else None,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=partial(loader_processes.start_worker, start_worker),  # not a closure: it may be pickled
        generator=torch.Generator(),  # its own, so that starting workers leaves the random numbers of the run alone
    )
    return loader_processes.watch(loader)


class DevicePrefetcher:
    """The (clip, label, index) batches of a loader on a device, clips as the network takes them.

    On a GPU a batch is copied from pinned memory in a stream of its own, while the previous one is computed.

    Args:
        loader: of (clip, label, index).
        device: where clip and label go; index stays on the CPU.
        to_input: from a batch of clips on the device to the input of the network: bytes travel four times as fast.

    Attributes:
        waited: seconds spent waiting for the loader, so far.
    """

    def __init__(self, loader: Iterable, device: torch.device, to_input: Callable[[Tensor], Tensor]) -> None:
        self.loader, self.device, self.to_input, self.waited = loader, device, to_input, 0.0
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __iter__(self) -> Iterator[Batch]:
        batches = loader_processes.start_workers(self.loader)
        while True:
            began = time.perf_counter()
            batch = loader_processes.next_batch(batches)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            clip, label, index = batch
            clip, label = self._copy(clip, label)
            yield self.to_input(clip), label, index

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


class HostCopies:
    """Copies on the CPU of tensors that the device may still compute.

    On a GPU the copies go to pinned memory, and the host goes on until it reads them.

    Args:
        tensors: at least one, all on one device.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        self._copied = torch.cuda.Event() if tensors[0].is_cuda else None
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(tensors[0].device))

    def read(self) -> list[Tensor]:
        """Waits until the copies are complete, and returns them in the order of the tensors."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copies


def padded_to_longest_rank(batches: DevicePrefetcher, dataset: Dataset) -> Iterator[Batch]:
    """The batches, then clips without labels and indices while another process still has batches.

    A sharded network needs all processes for each clip.

    Args:
        batches: of this process.
        dataset: of the loader; its first sample serves where this process has no batch at all.
    """
    own = iter(batches)
    batch = next(own, None)
    clip = None
    while any_rank(batch is not None):
        if batch is not None:
            clip = batch[0]
            yield batch
            batch = next(own, None)
        else:
            if clip is None:
                clip = batches.to_input(dataset[0][0][None].to(batches.device))
            nothing = torch.zeros(0, dtype=torch.int64)
            yield clip, nothing, nothing
