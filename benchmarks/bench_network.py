"""SIFA-Net's training step on a GPU, and the op's share of it: python -m benchmarks.bench_network

R50, 16 x 224 x 224, bfloat16, channels_last: clips per second with the op, with the op in a compiled network, and with
formulations in PyTorch instead of the op. A time is the median of many steps, measured in two runs. The op's share is
its part of the GPU time in the profiler, including its casts and fills. The clips stay in memory and are always the
same. Each line is appended to the file of --out as soon as it is known.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import models.sifa
from benchmarks.cuda_device import Call, CudaDevice, Device, forget, median_seconds, sees_gpu
from cuda_sifa import decomposition, inter_frame_attention, reference
from engine.launch import choose_algorithms
from engine.metrics import loss_over_heads
from models import build_model

NETWORK = "c2d_sifa_resnet50"
CLASSES = 400


@dataclass(frozen=True)
class Variant:
    """The attention that the network uses, and whether the network is compiled."""

    attention: Callable[..., torch.Tensor]
    compiled: bool = False


VARIANTS = {
    "op": Variant(inter_frame_attention),
    "op, compiled network": Variant(inter_frame_attention, compiled=True),
    "grid_sample": Variant(decomposition.inter_frame_attention),
    "reference": Variant(reference.inter_frame_attention),
}


@dataclass(frozen=True)
class Sizes:
    batch: int = 24
    frames: int = 16
    size: int = 224
    width: int = 64


HEAD = """\
| attention | clips/s | second run | step ms | share of the op | peak GiB |
|---|---|---|---|---|---|"""


def training_step(model: nn.Module, sizes: Sizes, device: str) -> Call:
    """Forward, loss, backward and a step of SGD, always on the same clips."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    clips = torch.randn(sizes.batch, 3, sizes.frames, sizes.size, sizes.size, device=device)
    labels = torch.randint(CLASSES, (sizes.batch,), device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            logits = model(clips)
        loss_over_heads(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


@contextmanager
def network(variant: Variant, sizes: Sizes, device: str) -> Iterator[nn.Module]:
    """A network that uses the variant instead of the op, within the `with` block."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    with patch.object(models.sifa, "inter_frame_attention", variant.attention):
        model = (
            build_model(NETWORK, num_classes=CLASSES, clip_length=sizes.frames, width=sizes.width).to(device).train()
        )
        if variant.compiled:
            model.compile()
        yield model


def share_of_the_op(step: Call, device: Device) -> float | None:
    """The op's part of the time that the device computes in a step; None if the op does not run."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    device.wait()
    with profile(activities=activities) as recorded:
        for _ in range(3):
            step()
        device.wait()
    return share(recorded.events(), "device" if device.type == "cuda" else "cpu")


def share(events: Any, of: str) -> float | None:
    """The op's part of the "device" or "cpu" time (`of`) in the profiler's events.

    A call counts with everything that it starts. It counts once, although a call with gradients is an event within the
    event of its autograd Function.
    """
    host = [event for event in events if event.device_type == DeviceType.CPU]
    device = [event for event in events if event.device_type != DeviceType.CPU and not event.is_user_annotation]
    calls = [event for event in host if is_call(event) and not any(map(is_call, callers(event)))]
    part = sum(getattr(event, f"{of}_time_total") for event in calls)
    spent = sum(getattr(event, f"self_{of}_time_total") for event in (host if of == "cpu" else device))
    return part / spent if calls else None


def is_call(event: Any) -> bool:
    return event.name.startswith("sifa::inter_frame_attention")


def callers(event: Any) -> Iterator[Any]:
    while (event := event.cpu_parent) is not None:
        yield event


def measure(device: Device, names: list[str], sizes: Sizes, seconds: float, out: Path | None) -> None:
    def write(text: str) -> None:
        print(text, flush=True)
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            with open(out, "a", encoding="utf-8") as file:
                file.write(text + "\n")

    write(
        f"\n{device.name}, torch {torch.__version__}: training step of {NETWORK}, width {sizes.width}, "
        f"{sizes.batch} clips of {sizes.frames} x {sizes.size} x {sizes.size}, bfloat16, channels_last\n\n{HEAD}"
    )
    for name in names:
        write(f"| {name} | {line(device, VARIANTS[name], sizes, seconds)} |")
        forget()


def line(device: Device, variant: Variant, sizes: Sizes, seconds: float) -> str:
    try:
        with network(variant, sizes, device.type) as model:
            step = training_step(model, sizes, device.type)
            runs = [median_seconds(device, [step], seconds) for _ in range(2)]
            part = share_of_the_op(step, device)
            memory = device.peak(step)
    except torch.OutOfMemoryError:
        return "out of memory | | | |"
    except TorchDynamoException as error:  # torch.compile lacks something; the other variants are still measured
        return f"does not compile: {str(error).strip().splitlines()[0]} | | | |"
    rates = " | ".join(f"{sizes.batch / run:.1f}" for run in runs)
    return f"{rates} | {500 * sum(runs):.1f} | {'' if part is None else f'{100 * part:.1f} %'} | {memory / 2**30:.1f}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seconds", type=float, default=4.0, help="for each of two runs of a variant")
    for name, value in vars(Sizes()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, help="append the table here")
    args = parser.parse_args(argv)
    if not sees_gpu():
        return 2
    choose_algorithms(deterministic=False)  # as in training
    sizes = Sizes(args.batch, args.frames, args.size, args.width)
    measure(CudaDevice(), args.only, sizes, args.seconds, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
