"""Compares the op on a GPU with the memory's limit and with PyTorch: `python -m benchmarks.bench_op --device cuda`.

For each shape, dtype and kind of offsets it measures the forward pass, the backward pass alone, and both.

- A time is the median over series of calls. Each call of a series has its own inputs; together they are four times as
  large as the last cache. Each shape is measured in two runs, and the table shows both.
- The floor is the time that the memory needs to move each of these once, at the bandwidth of a copy: x, offset and
  result (forward); x, offset, the result's gradient and both gradients (backward).
- The extra memory is the peak of the allocated memory without inputs and results.
- The contestants run both passes on offsets of about a pixel: the readable reference, grid_sample, and a gather
  compiled for each shape. The table names the fastest one, and those that do not fit in memory.

Each line is written as soon as it is known, so a run that is killed keeps its results.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

import cuda_sifa
from benchmarks.baselines import by_gather, by_grid_sample
from benchmarks.cuda_device import Call, Device, copy_bandwidth, forget, median_seconds
from benchmarks.op_cases import Attention, Shape, backward_pass, both_passes, forward_pass, inputs

PASSES = {"forward": forward_pass, "backward": backward_pass, "both": both_passes}
WANTED = {"forward": 3, "backward": 8}  # times the floor
CACHES = 4  # size of a series' inputs, in multiples of the last cache


@dataclass(frozen=True)
class Result:
    """A line of the table.

    Attributes:
        seconds: time of a call, in the first and the second run.
        floor: seconds that the memory needs.
        extra: peak of the allocated bytes without inputs and results.
        others: seconds of PyTorch's formulations, None for one that does not fit in memory.
    """

    shape: str
    offsets: str
    dtype: str
    direction: str
    seconds: tuple[float, float]
    floor: float
    extra: int
    others: dict[str, float | None]

    @property
    def multiple(self) -> float:
        return statistics.mean(self.seconds) / self.floor

    @property
    def best(self) -> tuple[str, float] | None:
        found = [(name, seconds) for name, seconds in self.others.items() if seconds is not None]
        return min(found, key=lambda entry: entry[1], default=None)

    def __str__(self) -> str:
        first, second = (f"{1e6 * seconds:.1f}" for seconds in self.seconds)
        best = ratio = ""
        if self.best:
            best = f"{1e3 * self.best[1]:.2f} ({self.best[0]})"
            ratio = f"{self.best[1] / statistics.mean(self.seconds):.1f}"
        too_large = [name for name, seconds in self.others.items() if seconds is None]
        if too_large:
            best = f"{best} out of memory: {', '.join(too_large)}".strip()
        cells = [self.shape, self.offsets, self.dtype, self.direction, first, second, f"{1e6 * self.floor:.1f}"]
        return f"| {' | '.join([*cells, f'{self.multiple:.1f}', f'{self.extra / 2**20:.1f}', best, ratio])} |"


HEAD = """\
| shape (N, T, C, H) | offsets | dtype | pass | op us | second run us | floor us | times the floor | extra MiB \
| best PyTorch ms | ratio |
|---|---|---|---|---|---|---|---|---|---|---|"""


def measure(
    device: Device, shapes: dict[str, Shape], *, only: str, seconds: float, alone: bool, out: Path | None
) -> list[Result]:
    """Prints the table and writes it to `out`, which it overwrites."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("")

    def write(text: str) -> None:
        print(text, flush=True)
        if out:
            with open(out, "a", encoding="utf-8") as file:
                file.write(text + "\n")

    bandwidth = copy_bandwidth(device, 16 * device.cache)
    write(
        f"{device.name}, last cache {device.cache / 2**20:.0f} MiB, torch {torch.__version__}, op "
        f"{cuda_sifa.library.build}; a copy moves {bandwidth / 1e12:.3f} TB/s, bytes read and written\n\n{HEAD}"
    )
    results = []
    for name, shape in shapes.items():
        if only in name:
            for result in measure_shape(device, name, shape, bandwidth, seconds, alone):
                write(str(result))
                results.append(result)
    write(summary(results))
    return results


def measure_shape(
    device: Device, name: str, shape: Shape, bandwidth: float, seconds: float, alone: bool
) -> Iterator[Result]:
    for dtype in (torch.float32, torch.bfloat16):
        for offsets in ("sub-pixel", "zero", "none"):
            series = inputs_beyond_the_cache(device, shape, offsets, dtype)
            calls = {
                direction: [make(cuda_sifa.inter_frame_attention, *pair) for pair in series]
                for direction, make in PASSES.items()
            }
            runs = [{key: median_seconds(device, calls[key], seconds) for key in calls} for _ in range(2)]
            x, offset = series[0]
            moved = {"forward": bytes_of(x, offset, x), "backward": bytes_of(x, offset, x, x, offset)}
            moved["both"] = moved["forward"] + moved["backward"]
            kept = {"forward": bytes_of(x), "backward": bytes_of(x, offset), "both": bytes_of(x, x, offset)}
            extra = {key: max(0, device.peak(calls[key][0]) - kept[key]) for key in calls}
            series = series[:1]
            calls.clear()
            forget()
            others = {} if alone or offsets != "sub-pixel" else contestants(device, *series[0], seconds)
            for key in PASSES:
                yield Result(
                    shape=f"{name} {shape}",
                    offsets=offsets,
                    dtype=str(dtype).removeprefix("torch."),
                    direction=key,
                    seconds=(runs[0][key], runs[1][key]),
                    floor=moved[key] / bandwidth,
                    extra=extra[key],
                    others=others if key == "both" else {},
                )


def inputs_beyond_the_cache(
    device: Device, shape: Shape, offsets: str, dtype: torch.dtype
) -> list[tuple[Tensor, Tensor | None]]:
    first = inputs(shape, offsets, dtype, device.type)
    sets = min(64, max(2, math.ceil(CACHES * device.cache / bytes_of(*first))))
    return [first, *(inputs(shape, offsets, dtype, device.type) for _ in range(sets - 1))]


def bytes_of(*tensors: Tensor | None) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def contestants(device: Device, x: Tensor, offset: Tensor | None, seconds: float) -> dict[str, float | None]:
    """Both passes in plain PyTorch. One input is enough: the intermediate results are larger than any cache."""
    torch._dynamo.reset()
    found: dict[str, float | None] = {}
    formulations: dict[str, Attention] = {
        "reference": cuda_sifa.reference.inter_frame_attention,
        "grid_sample": by_grid_sample,
        "compiled gather": torch.compile(by_gather, dynamic=False),
    }
    for name, function in formulations.items():
        found[name] = seconds_or_none(device, both_passes(function, x, offset), seconds)
    return found


def seconds_or_none(device: Device, call: Call, seconds: float) -> float | None:
    """None if the call does not fit in the device's memory, or if torch.compile lacks something."""
    try:
        return median_seconds(device, [call], seconds)
    except torch.OutOfMemoryError:
        return None
    except TorchDynamoException as error:
        print(f"skipped: {str(error).strip().splitlines()[0]}", flush=True)
        return None
    finally:
        forget()


def summary(results: list[Result]) -> str:
    """Best and worst results compared with the targets, for offsets of about a pixel, by dtype and pass."""
    lines = []
    for dtype in dict.fromkeys(result.dtype for result in results):
        here = [result for result in results if (result.dtype, result.offsets) == (dtype, "sub-pixel")]
        for direction, wanted in WANTED.items():
            multiples = [result.multiple for result in here if result.direction == direction]
            lines.append(
                f"{dtype} {direction}: {min(multiples):.1f} to {max(multiples):.1f} times the floor, "
                f"wanted at most {wanted}; {sum(m <= wanted for m in multiples)} of {len(multiples)} shapes"
            )
        ratios = [result.best[1] / statistics.mean(result.seconds) for result in here if result.best]
        if ratios:
            lines.append(
                f"{dtype} both: {min(ratios):.1f} to {max(ratios):.1f} times as fast as the best PyTorch, wanted 3"
            )
    return "\n" + "\n".join(f"- {line}" for line in lines) if lines else ""
