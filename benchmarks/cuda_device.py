"""A GPU to measure on: time from its events, memory from its allocator."""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

Call = Callable[[], object]


class Device(Protocol):
    """What a measurement needs of a device; the tests have one that needs no GPU.

    Attributes:
        type: of the device, in PyTorch's words.
        name: of the device.
        cache: size in bytes of the last cache before memory.
    """

    type: str
    name: str
    cache: int

    def seconds(self, calls: Sequence[Call], issue: float) -> float:
        """Time that the device takes for all calls in a row; `issue` is the time that the host takes to launch them."""

    def peak(self, call: Call) -> int:
        """Peak of the memory in bytes that the call allocates, including its results."""

    def wait(self) -> None:
        """Returns when all work is done."""


class CudaDevice:
    """The current GPU."""

    type = "cuda"

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties()
        self.name, self.cache = properties.name, properties.L2_cache_size

    def seconds(self, calls: Sequence[Call], issue: float) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The GPU waits until the host has launched everything. Otherwise the pauses between short kernels would count.
        torch.cuda._sleep(int(2e9 * min(1.5 * issue, 0.5)))  # in cycles
        start.record()
        results = [call() for call in calls]  # kept, so that each call writes to its own memory
        end.record()
        end.synchronize()
        del results
        return start.elapsed_time(end) / 1e3

    def peak(self, call: Call) -> int:
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        self.wait()
        del result
        return torch.cuda.max_memory_allocated() - before

    def wait(self) -> None:
        torch.cuda.synchronize()


def median_seconds(device: Device, calls: Sequence[Call], seconds: float) -> float:
    """Time of a call: the median over series of all calls in a row, of 5 to 100 series, as many as fit in `seconds`."""
    for _ in range(2):  # compiles, allocates, chooses algorithms
        for call in calls:
            call()
        device.wait()
    began = time.perf_counter()
    for call in calls:
        call()
    issue = time.perf_counter() - began
    device.wait()
    series: list[float] = []
    last = time.perf_counter() + seconds
    while len(series) < 5 or (len(series) < 100 and time.perf_counter() < last):
        series.append(device.seconds(calls, issue))
    return statistics.median(series) / len(calls)


def copy_bandwidth(device: Device, size: int) -> float:
    """Bytes per second, read and written, that a copy of `size` bytes reaches."""
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device.type)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(device, [lambda: target.copy_(source)], 0.5)


def forget() -> None:
    """Frees unused memory before the next measurement."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of `python -m benchmarks.MODULE`, a measurement on a GPU that --out keeps in a file."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, help="also write the figures to this file")
    return made


def sees_gpu() -> bool:
    """Whether PyTorch sees a GPU; says so in one line if not."""
    if not torch.cuda.is_available():
        print("error: this is measured on a GPU, PyTorch sees none", file=sys.stderr)
    return torch.cuda.is_available()
