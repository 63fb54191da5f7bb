"""Compares the cost of SIFA's networks with networks of torchvision and pytorchvideo, on clips of the same size.

    python -m benchmarks.bench_peers --out benchmarks/results/peers-cpu.md

One clip of 16 x 224 x 224, a forward pass in eval mode and a training step (SGD with momentum), float32, 400 classes,
random weights. Each network is in a process of its own; the networks take turns, of two calls of which the second one
is measured. A process gives its free memory back after its turn: the training steps of all of them would not fit into
24 GB at once. Convolutional networks compute in the faster of their two memory layouts. Cost says nothing about
accuracy. A second file with the suffix .json has the times of all rounds. pytorchvideo is old; it still works without
its dependencies on other video libraries:

    pip install --no-deps pytorchvideo fvcore iopath parameterized yacs portalocker termcolor tabulate
"""

import argparse
import ctypes
import importlib
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import Worker, conditions, peak_memory, run, seconds, take_turns

CLASSES, FRAMES, SIZE = 400, 16, 224  # s3d and mvit_v2_s take no smaller clip


@dataclass(frozen=True)
class Peer:
    """A network: where its function is, what the function gets, whether it is large and takes part in fewer rounds."""

    module: str
    function: str
    options: dict[str, Any] = field(default_factory=dict)
    large: bool = False
    convolutional: bool = True
    pathways: bool = False  # SlowFast's: a quarter of the frames, and all


SLOWFAST = {"head_pool_kernel_sizes": ((4, 7, 7), (16, 7, 7))}  # for 16 frames; the library's own are for 32
SIFA = {"num_classes": CLASSES, "clip_length": FRAMES}
TORCHVISION, PYTORCHVIDEO = "torchvision.models.video", "pytorchvideo.models.hub"
PEERS = {
    "SIFA-Net R50": Peer("models", "build_model", {"net_name": "c2d_sifa_resnet50", **SIFA}),
    "SIFA-Transformer S": Peer(
        "models", "build_model", {"net_name": "c2d_sifa_swin_vit_s_p4_w7", **SIFA}, convolutional=False
    ),
    "r2plus1d_18": Peer(TORCHVISION, "r2plus1d_18", {}, large=True),
    "s3d": Peer(TORCHVISION, "s3d"),
    "mvit_v2_s": Peer(TORCHVISION, "mvit_v2_s", convolutional=False),
    "swin3d_t": Peer(TORCHVISION, "swin3d_t", convolutional=False),
    "swin3d_s": Peer(TORCHVISION, "swin3d_s", large=True, convolutional=False),
    "swin3d_b": Peer(TORCHVISION, "swin3d_b", large=True, convolutional=False),
    "slow_r50": Peer(PYTORCHVIDEO, "slow_r50", large=True),
    "slowfast_r50": Peer(PYTORCHVIDEO, "slowfast_r50", SLOWFAST, pathways=True),
    "x3d_m": Peer(PYTORCHVIDEO, "x3d_m"),
}
KINDS = ("forward", "step")


def build(name: str, device: str = "cpu") -> nn.Module:
    """A network with random weights. Raises ImportError if its library is not installed."""
    peer = PEERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # pytorchvideo's use of TorchScript
        function = getattr(importlib.import_module(peer.module), peer.function)
    torch.manual_seed(0)
    with torch.device(device):
        return function(**peer.options)


def input_of(name: str, device: str = "cpu") -> Tensor | list[Tensor]:
    clip = torch.randn(1, 3, FRAMES, SIZE, SIZE, device=device)
    return [clip[:, :, ::4].contiguous(), clip] if PEERS[name].pathways else clip


def cost(name: str) -> dict[str, float]:
    """Multiply-adds and parameters in 10^9 and 10^6, counted on the meta device."""
    network = build(name, "meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(input_of(name, "meta"))
    return {
        "gmacs": counter.get_total_flops() / 2e9,
        "parameters": sum(parameter.numel() for parameter in network.parameters()) / 1e6,
    }


def calls(network: nn.Module, kind: str, clip: Any) -> Callable[[], object]:
    """A forward pass in eval mode, or a training step, as a call."""
    network.train(kind == "step")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    label = torch.zeros(1, dtype=torch.int64)

    @torch.inference_mode()
    def forward() -> object:
        return network(_fresh(clip))

    def step() -> None:
        logits = network(_fresh(clip))
        heads = logits if isinstance(logits, tuple) else (logits,)
        sum((F.cross_entropy(head, label) for head in heads), torch.zeros(())).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return forward if kind == "forward" else step


def _fresh(clip: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """The same clip; SlowFast changes the list that it gets."""
    return [*clip] if isinstance(clip, list) else clip


CALL: list[Callable[[], object]] = []  # of this process, once it is built


def answer(command: str, *words: Any) -> Any:
    """In a worker: what a command asks for."""
    if command == "build":
        name, kind, layout, threads = words
        torch.set_num_threads(threads)
        before = peak_memory()
        network, clip = build(name), input_of(name)
        if layout == "channels last":
            network = network.to(memory_format=torch.channels_last_3d)
        CALL[:] = [calls(network, kind, clip)]
        CALL[0]()  # allocates
        _give_memory_back()
        return before
    if command == "cost":
        try:
            return cost(*words)
        except ImportError as error:
            return {"missing": str(error)}
    if command == "memory":
        return peak_memory()
    CALL[0]()  # after other networks had the caches, and the memory that was given back
    taken = seconds(CALL[0])
    _give_memory_back()
    return taken


def _give_memory_back() -> None:
    """What an idle process keeps, the next network may need."""
    ctypes.CDLL(None).malloc_trim(0)


def measure(kind: str, layouts: dict[str, str], rounds: dict[str, int], threads: int) -> dict[str, Any]:
    """Times of the rounds and memory in MB of each network, without what the process takes before it builds one."""
    workers = {name: Worker("benchmarks.bench_peers") for name in layouts}
    before = {name: worker.ask("build", name, kind, layouts[name], threads) for name, worker in workers.items()}
    times = take_turns(workers, rounds, "turn")
    memory = {name: worker.ask("memory") - before[name] for name, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    return {"times": times, "memory": memory}


def faster_layouts(names: list[str], threads: int) -> dict[str, str]:
    """The memory layout of each network, from one forward pass in either where there is a choice."""
    layouts = {}
    for name in names:
        # SIFA's networks choose for themselves.
        choice = ["own"]
        if PEERS[name].convolutional and PEERS[name].module != "models":
            choice = ["channels first", "channels last"]
        taken = {}
        for layout in choice if len(choice) > 1 else []:
            worker = Worker("benchmarks.bench_peers")
            worker.ask("build", name, "forward", layout, threads)
            taken[layout] = worker.ask("turn")
            worker.close()
        layouts[name] = min(taken, key=lambda layout: taken[layout]) if taken else choice[0]
    return layouts


def table(costs: dict[str, Any], layouts: dict[str, str], measured: dict[str, Any]) -> str:
    lines = [
        "| network | layout | parameters, M | GMACs | forward, s | ms per GMAC | memory, GB | step, s | ms per GMAC | "
        "memory, GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, own in costs.items():
        if "missing" in own:
            lines.append(f"| {name} | not measured: {own['missing']} |" + 8 * " |")
            continue
        cells = [name, layouts[name], f"{own['parameters']:.1f}", f"{own['gmacs']:.1f}"]
        for kind in measured:
            taken = statistics.median(measured[kind]["times"][name])
            memory = measured[kind]["memory"][name] / 1e3
            cells += [f"{taken:.2f}", f"{1e3 * taken / own['gmacs']:.1f}", f"{memory:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=4, help="of training steps; of forward passes twice as many")
    parser.add_argument("--large_rounds", type=int, default=2, help="the same for large networks")
    parser.add_argument("--out", type=Path, help="also write the table to this file, and all times to NAME.json")
    args = parser.parse_args(argv)
    head = conditions(args.threads)
    counter = Worker("benchmarks.bench_peers")
    costs = {name: counter.ask("cost", name) for name in args.only}
    counter.close()
    names = [name for name in args.only if "missing" not in costs[name]]
    layouts, measured = faster_layouts(names, args.threads), {}
    for kind, factor in zip(KINDS, (2, 1), strict=True):
        rounds = {name: factor * (args.large_rounds if PEERS[name].large else args.rounds) for name in names}
        measured[kind] = measure(kind, layouts, rounds, args.threads)
        print(f"{kind}: {measured[kind]['times']}", file=sys.stderr)
    counts = f"{2 * args.rounds} forward passes and {args.rounds} steps"
    large = f"of large networks {2 * args.large_rounds} and {args.large_rounds}"
    text = (
        f"# SIFA's networks and others: cost\n\nOne clip of {FRAMES} x {SIZE} x {SIZE}, float32; {head}. "
        f"Medians of {counts}, {large}.\n\n{table(costs, layouts, measured)}\n"
    )
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
        contents = {"conditions": head, "cost": costs, "layouts": layouts, **measured}
        args.out.with_suffix(".json").write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run(main, answer)
