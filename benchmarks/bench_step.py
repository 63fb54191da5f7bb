"""What the training loop costs compared with the bare step: python -m benchmarks.bench_step

Two loops take turns with the same network on the same batch: `engine.train_loop.train_epoch` as train_val_3d.py runs
it, and a loop of nothing but forward, loss, backward and optimizer step. The clips stay in memory, so no loader takes
part. The result is the median ratio of the two over all turns, because times on a shared machine mean little.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from datasets import normalise
from engine.metrics import loss_over_heads
from engine.optim import build_optimizer
from engine.precision import AMP_DTYPES, autocast
from engine.prefetch import DevicePrefetcher
from engine.schema import Config, Execution, Logging, Optimization
from engine.state import TrainState
from engine.train_loop import train_epoch
from models import build_model

CLASSES = 10


def bare_step(model: nn.Module, optimizer: torch.optim.Optimizer, clips: Tensor, labels: Tensor, amp: str) -> None:
    """The least that a training step can do."""
    with autocast(clips.device, AMP_DTYPES[amp]):
        logits = model(normalise(clips))
    loss_over_heads(logits, labels).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 40.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def turns(args: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """Yields the seconds per step of the bare loop and of the script's, turn by turn."""
    device = torch.device(args.device)
    config = Config(
        optimization=Optimization(ema_decay=args.ema_decay),
        execution=Execution(amp=args.amp),
        logging=Logging(print_freq=args.steps),
    )
    clips = torch.randint(256, (args.batch, args.frames, args.size, args.size, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(CLASSES, (args.batch,), device=device)
    torch.manual_seed(0)
    models = [
        build_model("c2d_sifa_resnet50", num_classes=CLASSES, clip_length=args.frames, width=args.width).to(device)
        for _ in range(2)
    ]
    for model in models:
        model.train()
    bare, scripted = models
    bare_optimizer = build_optimizer(bare, config.optimization)
    # A warm-up of so many iterations that the learning rate stays small.
    state = TrainState.new(scripted, config.optimization, args.amp, 10**6, device)
    state.iterations_per_epoch = args.steps
    batches = DevicePrefetcher([(clips, labels, torch.arange(args.batch))] * args.steps, device, normalise)

    def scripted_epoch() -> None:
        train_epoch(state, scripted, batches, config)
        state.start_epoch()

    def bare_epoch() -> None:
        for _ in range(args.steps):
            bare_step(bare, bare_optimizer, clips, labels, args.amp)

    def seconds(epoch: Callable[[], None]) -> float:
        began = time.perf_counter()
        epoch()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / args.steps

    seconds(bare_epoch), seconds(scripted_epoch)  # the first turn warms up
    for turn in range(args.turns):
        if turn % 2:
            other = seconds(scripted_epoch)
            yield seconds(bare_epoch), other
        else:
            yield seconds(bare_epoch), seconds(scripted_epoch)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=16, help="of the network; 64 is the paper's")
    parser.add_argument("--amp", choices=tuple(AMP_DTYPES), default="none")
    parser.add_argument("--ema_decay", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=10, help="per turn")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, help="also append the line to this file")
    args = parser.parse_args(argv)
    bare, scripted = zip(*turns(args), strict=True)
    ratios = sorted(b / a for a, b in zip(bare, scripted, strict=True))
    quarter = len(ratios) // 4
    ratio, middle = statistics.median(ratios), f"{ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}"
    line = (
        f"R50 width {args.width}, {args.batch} x {args.frames} x {args.size} x {args.size}, {args.device}, "
        f"amp {args.amp}, "
        f"ema_decay {args.ema_decay:g}, {torch.get_num_threads()} threads: the script's step takes {ratio:.3f} times "
        f"the bare one (middle half of {len(ratios)} turns of {args.steps} steps: {middle}; fastest against fastest "
        f"{min(scripted) / min(bare):.3f}), {1000 * min(bare):.0f} ms"
    )
    print(line)
    if args.out:
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
