"""The kernels of a call of the op on a GPU, with their times: python -m benchmarks.profile_op

For each shape and dtype: every kernel that the forward and the backward pass start, how often, and its mean time. So
one sees what is not the op's own kernels: fills, casts, copies.
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import cuda_sifa
from benchmarks.cuda_device import parser, sees_gpu
from benchmarks.op_cases import CUDA_SHAPES, Shape, both_passes, inputs

CALLS = 10
NAME_LENGTH = 90  # of a kernel in the table; the template arguments of the rest say little


def kernels(events: Any, of: DeviceType) -> dict[str, tuple[int, float]]:
    """Of the profiler's events, each kernel's number of launches and time in microseconds, longest first."""
    found: dict[str, tuple[int, float]] = {}
    for event in events:
        if event.device_type == of and not event.is_user_annotation:
            count, time = found.get(event.name, (0, 0.0))
            own = event.self_cpu_time_total if of == DeviceType.CPU else event.self_device_time_total
            found[event.name] = count + 1, time + own
    return dict(sorted(found.items(), key=lambda entry: -entry[1][1]))


def lines(device: str, shapes: dict[str, Shape]) -> Iterator[str]:
    """The table, line by line as it is measured. Without a GPU (device "cpu") PyTorch's functions are its kernels."""
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]
    yield "| shape | dtype | kernel | launches a call | us each |"
    yield "|---|---|---|---|---|"
    for name, shape in shapes.items():
        for dtype in (torch.float32, torch.bfloat16):
            call = both_passes(cuda_sifa.inter_frame_attention, *inputs(shape, "sub-pixel", dtype, device))
            for _ in range(3):
                call()
            with profile(activities=activities) as recorded:
                for _ in range(CALLS):
                    call()
                if on_gpu:
                    torch.cuda.synchronize()
            found = kernels(recorded.events(), DeviceType.CUDA if on_gpu else DeviceType.CPU)
            for kernel, (count, time) in found.items():
                short = kernel if len(kernel) <= NAME_LENGTH else kernel[:NAME_LENGTH] + "..."
                cells = [name, str(dtype).removeprefix("torch."), short, f"{count / CALLS:g}", f"{time / count:.1f}"]
                yield f"| {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> int:
    args = parser("profile_op", __doc__).parse_args(argv)
    if not sees_gpu():
        return 2
    with open(args.out, "w", encoding="utf-8") if args.out else sys.stdout as file:
        for line in lines("cuda", CUDA_SHAPES):
            print(line, file=file, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
